/*
 * test_hash.c - goal: keys are the SHA-256 chains that hash.c draws, byte for byte, for ever: a store
 * written today names its rows by them. Method: vectors made by another program (below), and the
 * pairs that a sloppier encoding would let collide.
 *
 * The vectors come from Python's hashlib:
 *   f = lambda l, v: bytes([len(l)]) + l + struct.pack('<Q', len(v)) + v
 *   root = sha256(f(b'kind', b'root') + f(b'model', tag) + f(b'tenant', salt) + f(b'adapter', id))
 *   next = sha256(f(b'kind', b'next') + f(b'parent', key) + f(b'tokens', struct.pack('<nI', ...)))
 *   name = sha256(f(b'kind', b'name') + f(b'bytes', name))
 */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "abode/abode.h"

static void assert_key(const struct abode_key *key, const char *wanted)
{
    char text[65];
    for (int i = 0; i < 32; i++) {
        (void)snprintf(text + (size_t)i * 2, 3, "%02x", key->bytes[i]);
    }
    assert_string_equal(text, wanted);
}

static void fill_tag(uint8_t tag[32])
{
    for (int i = 0; i < 32; i++) {
        tag[i] = (uint8_t)i;
    }
}

static void chain_has_the_documented_bytes(void **state)
{
    (void)state;
    uint8_t tag[32];
    uint32_t tokens[16];
    struct abode_key root;
    struct abode_key key;
    fill_tag(tag);
    for (uint32_t i = 0; i < 16; i++) {
        tokens[i] = i;
    }
    abode_key_root(tag, "salt", 4, "lora-7", 6, &root);
    assert_key(&root, "40b13227e46723b2a50b556404278a7c1c2b8fdbfb69455578330d5ae4d07443");
    abode_key_next(&root, tokens, 16, &key);
    assert_key(&key, "f7c5ba948d6fb4c7afe4e37dabbb4f0d1b25f58a0b744e626e93a1f8ee3c6038");
    /* in place: parent and result are one object; the largest token; a second step */
    const uint32_t edge[] = {UINT32_MAX, 0, 1u << 31};
    abode_key_next(&key, edge, 3, &key);
    assert_key(&key, "cc5d47bae2e000aa62e2bae148260a99236a499af21d1e31bdffc4c877db91f7");
}

static void empty_fields_are_fields(void **state)
{
    (void)state;
    uint8_t tag[32];
    struct abode_key root;
    struct abode_key key;
    fill_tag(tag);
    abode_key_root(tag, NULL, 0, NULL, 0, &root);
    assert_key(&root, "3d9d2e6637d614db99f31211b68abcb156d63d28a0c380a38a6379b627981f42");
    abode_key_root(tag, "salt", 4, "lora-7", 6, &root);
    abode_key_next(&root, NULL, 0, &key);
    assert_key(&key, "e1a3dbda00ecc148c47fc2de225bf6680a81d4317f335f3130afdd88404886ab");
}

static void names_of_any_length(void **state)
{
    (void)state;
    struct abode_key key;
    abode_key_from_bytes(NULL, 0, &key);
    assert_key(&key, "78e105958b9b6237de383278a4d609730effd32504481b3f7f42c5f66604de5e");
    abode_key_from_bytes("vllm-block-0123456789abcdef0123456789", 37, &key);
    assert_key(&key, "3fe2af28579ad84371109ee84440f7f184594520e61ef8991444ef444d18ca4b");
}

static void bytes_do_not_slide_between_fields(void **state)
{
    (void)state;
    uint8_t tag[32];
    struct abode_key a;
    struct abode_key b;
    fill_tag(tag);
    abode_key_root(tag, "ab", 2, "c", 1, &a);
    abode_key_root(tag, "a", 1, "bc", 2, &b);
    assert_memory_not_equal(a.bytes, b.bytes, 32);
    abode_key_root(tag, "abc", 3, "", 0, &b);
    assert_memory_not_equal(a.bytes, b.bytes, 32);
    /* a name that spells a row's 32 bytes is not that row */
    abode_key_from_bytes(a.bytes, 32, &b);
    assert_memory_not_equal(a.bytes, b.bytes, 32);
    /* two rows of one token are not one row of two */
    const uint32_t tokens[] = {7, 9};
    struct abode_key both;
    abode_key_next(&a, tokens, 2, &both);
    abode_key_next(&a, tokens, 1, &b);
    abode_key_next(&b, tokens + 1, 1, &b);
    assert_memory_not_equal(both.bytes, b.bytes, 32);
    /* one bit of the tag is another model */
    tag[31] ^= 0x80;
    abode_key_root(tag, "ab", 2, "c", 1, &b);
    assert_memory_not_equal(a.bytes, b.bytes, 32);
}

static void xxh3_is_the_published_function(void **state)
{
    (void)state;
    /* XXH3's published values of the empty input with seed 0 */
    const struct ab_hash128 empty = ab_hash128("", 0, 0);
    assert_true(empty.high == 0x99aa06d3014798d8 && empty.low == 0x6001c324468d497f);
    assert_true(ab_hash64("", 0, 0) == 0x2d06800538d394c2);
}

static void seeds_and_single_bits_change_the_hash(void **state)
{
    (void)state;
    unsigned char bytes[4096 + 1] = {0};
    const struct ab_hash128 plain = ab_hash128(bytes, 4096, 0);
    assert_true(ab_hash128_equal(plain, ab_hash128(bytes + 1, 4096, 0))); /* not the address */
    assert_false(ab_hash128_equal(plain, ab_hash128(bytes, 4096, 1)));
    assert_false(ab_hash128_equal(plain, ab_hash128(bytes, 4095, 0)));
    for (int i = 0; i < 4096; i += 31) {
        bytes[i] = 0x10;
        assert_false(ab_hash128_equal(plain, ab_hash128(bytes, 4096, 0)));
        bytes[i] = 0;
    }
    assert_true(ab_hash64(bytes, 4096, 5) != ab_hash64(bytes, 4096, 6));
    assert_false(ab_hash128_equal((struct ab_hash128){1, 2}, (struct ab_hash128){1, 3}));
    assert_false(ab_hash128_equal((struct ab_hash128){1, 2}, (struct ab_hash128){0, 2}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_has_the_documented_bytes),
        cmocka_unit_test(empty_fields_are_fields),
        cmocka_unit_test(names_of_any_length),
        cmocka_unit_test(bytes_do_not_slide_between_fields),
        cmocka_unit_test(xxh3_is_the_published_function),
        cmocka_unit_test(seeds_and_single_bits_change_the_hash),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
