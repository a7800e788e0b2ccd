/* refuse.c - see refuse.h. */
#include "fault/refuse.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

/* A filter of comparisons: for each rule, the number (and a flag) or on to the next. */
int refuse(const struct refuse_rule *rules, uint32_t rule_count)
{
    struct sock_filter code[4 + 4 * REFUSE_RULES_MAX + 1];
    struct sock_fprog program = {.filter = code};
    uint16_t used = 0;

    code[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    for (uint32_t index = 0; index < rule_count; index++) {
        const struct refuse_rule *rule = &rules[index];
        uint8_t rest = rule->flag != 0 ? 3 : 1;

        code[used++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                    offsetof(struct seccomp_data, nr));
        code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->call, 0, rest);
        if (rule->flag != 0) {
            code[used++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                        offsetof(struct seccomp_data, args[2]));
            code[used++] =
                (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, rule->flag, 0, 1);
        }
        code[used++] = (struct sock_filter)BPF_STMT(
            BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)rule->error & SECCOMP_RET_DATA));
    }
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = used;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        return -errno;
    }
    return 0;
}
