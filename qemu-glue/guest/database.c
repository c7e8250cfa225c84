/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * database.c - ask a redis, and compare what it says to the byte
 *
 * Commands go out by the dozen, and the replies that they must have are laid out beside them: what comes
 * back is right if it is the same bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "database.h"
#include "work.h"

#define SOCKET "/tmp/redis"
#define AT_ONCE 32u
#define WORDS_MIN 40u           /* of a value, eight letters each */
#define WORDS_MORE 127u
#define ROOM ((WORDS_MIN + WORDS_MORE) * 8 + 128)
#define ANSWER_S 30

struct exchange {
    char out[AT_ONCE * ROOM], want[AT_ONCE * ROOM], got[AT_ONCE * ROOM];
    size_t out_bytes, want_bytes;
    unsigned commands;
    struct { uint32_t key; size_t want_at; } command[AT_ONCE];
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15;
    return x ^ x >> 29;
}

static uint32_t random_key(struct database *db)
{
    uint64_t part = rng_next(&db->rng) & 0xffffffff;

    /* The cube: few are asked for often. Their places in memory are apart. */
    part = (part * part >> 32) * part >> 32;
    return (uint32_t)(part * db->keys >> 32) * 2654435761u & (db->keys - 1);
}

/* Its length stays, so that the server's memory does not grow. */
static unsigned value_of(uint32_t key, uint32_t generation, uint64_t *value)
{
    unsigned words = WORDS_MIN + (unsigned)(mix(key + 1) & WORDS_MORE);
    uint64_t rng = mix((uint64_t)key << 32 | generation);

    content_words(value, words, CONTENT_WORDS, &rng);
    return words * 8;
}

static void lost(struct database *db, const char *why)
{
    char line[256];

    snprintf(line, sizeof(line), "BAD database: %s", why);
    work_complain(line);
    db->is_lost = true;
    atomic_fetch_add_explicit(&db->bad, 1, memory_order_relaxed);
}

/* Which answer is the first wrong one? */
static void place(struct database *db, const struct exchange *x)
{
    unsigned at = x->commands - 1;
    size_t byte = 0;
    char why[128];

    while (x->got[byte] == x->want[byte]) {
        byte++;
    }
    while (at && x->command[at].want_at > byte) {
        at--;
    }
    snprintf(why, sizeof(why), "key %u of generation %u: byte %zu of the answer differs",
             x->command[at].key, db->generations[x->command[at].key], byte - x->command[at].want_at);
    lost(db, why);
}

static void exchange(struct database *db, struct exchange *x)
{
    size_t done = 0;

    while (done < x->out_bytes) {
        ssize_t sent = send(db->fd, x->out + done, x->out_bytes - done, MSG_NOSIGNAL);

        if (sent <= 0) {
            lost(db, "it takes no command");
            return;
        }
        done += (size_t)sent;
    }
    done = 0;
    while (done < x->want_bytes) {
        ssize_t got = recv(db->fd, x->got + done, x->want_bytes - done, 0);

        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    if (memcmp(x->got, x->want, done)) {
        place(db, x);
    } else if (done < x->want_bytes) {
        lost(db, "it gives no answer");
    }
}

static void run(struct database *db)
{
    struct exchange *x = db->exchange;

    if (!db->is_lost) {
        exchange(db, x);
    }
    x->out_bytes = x->want_bytes = x->commands = 0;
}

static void put(char *to, size_t *at, const void *bytes, size_t n)
{
    memcpy(to + *at, bytes, n);
    *at += n;
}

static void ask(struct database *db, uint32_t key, bool is_update)
{
    struct exchange *x = db->exchange;
    uint64_t value[WORDS_MIN + WORDS_MORE];
    unsigned bytes;
    char head[96];
    int n;

    if (x->commands == AT_ONCE) {
        run(db);
    }
    x->command[x->commands].key = key;
    x->command[x->commands++].want_at = x->want_bytes;
    bytes = value_of(key, db->generations[key] += is_update, value);
    if (is_update) {
        n = snprintf(head, sizeof(head), "*3\r\n$3\r\nSET\r\n$8\r\n%08x\r\n$%u\r\n", key, bytes);
        put(x->out, &x->out_bytes, head, (size_t)n);
        put(x->out, &x->out_bytes, value, bytes);
        put(x->out, &x->out_bytes, "\r\n", 2);
        put(x->want, &x->want_bytes, "+OK\r\n", 5);
    } else {
        n = snprintf(head, sizeof(head), "*2\r\n$3\r\nGET\r\n$8\r\n%08x\r\n", key);
        put(x->out, &x->out_bytes, head, (size_t)n);
        n = snprintf(head, sizeof(head), "$%u\r\n", bytes);
        put(x->want, &x->want_bytes, head, (size_t)n);
        put(x->want, &x->want_bytes, value, bytes);
        put(x->want, &x->want_bytes, "\r\n", 2);
    }
}

void database_burst(struct database *db)
{
    for (unsigned i = 0; i < db->updates; i++) {
        ask(db, random_key(db), true);
    }
    for (unsigned i = 0; i < db->reads; i++) {
        ask(db, (uint32_t)db->read_at, false);
        db->read_at = (db->read_at + 1) & (db->keys - 1);
    }
    run(db);
    atomic_fetch_add_explicit(&db->changed, db->updates, memory_order_relaxed);
    atomic_fetch_add_explicit(&db->checked, db->reads, memory_order_relaxed);
}

void database_verify(struct database *db)
{
    for (uint32_t key = 0; key < db->keys; key++) {
        ask(db, key, false);
    }
    run(db);
    atomic_store_explicit(&db->verify, false, memory_order_relaxed);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval patience = { .tv_sec = ANSWER_S };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    for (unsigned waited = 0; fd >= 0; waited++) {
        if (!connect(fd, (struct sockaddr *)&address, sizeof(address))) {
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
            return fd;
        }
        if (waited == ANSWER_S * 100) {
            close(fd);
            return -1;
        }
        usleep(10000);
    }
    return fd;
}

bool database_init(struct database *db)
{
    if (db->keys & (db->keys - 1)) {
        errno = EINVAL;
        return false;
    }
    if (!fork()) {
        execl("/usr/bin/redis-server", "redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "",
              "--appendonly", "no", "--loglevel", "warning", NULL);
        perror("/usr/bin/redis-server");
        _exit(1);
    }
    db->exchange = calloc(1, sizeof(*db->exchange));
    db->generations = calloc(db->keys, sizeof(*db->generations));
    db->fd = connect_to(SOCKET);
    if (!db->exchange || !db->generations || db->fd < 0) {
        return false;
    }
    db->rng = 2;
    for (uint32_t key = 0; key < db->keys; key++) {
        ask(db, key, true);
    }
    run(db);
    return !db->is_lost;
}
