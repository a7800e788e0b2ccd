/*
 * coverage_exit.c - _exit() that tells gcov first: children of tests end so, and their branches count as well.
 * Linked in only by `make coverage` (--wrap=_exit); nothing else refers to it.
 */
void __gcov_dump(void);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));

void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
