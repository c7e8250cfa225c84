/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * database.h - a real database in a test guest, used by a client that knows every answer
 *
 * The server is Debian's redis, as its package has it. The client sets keys to new values, a tenth of
 * them nearly half of the time, and gets others; a value follows from its key and its generation, and the
 * generations are kept here. So an answer from memory that arrived wrong, or old, is found.
 */
#ifndef GODWIT_GUEST_DATABASE_H
#define GODWIT_GUEST_DATABASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database {
    unsigned keys;              /* a power of two */
    unsigned updates, reads;    /* of a burst */
    int fd;
    uint32_t *generations;      /* one a key */
    uint64_t rng;
    uint64_t read_at;
    struct exchange *exchange;
    bool is_lost;               /* it gave a wrong answer, or none: nothing it says can be placed any more */
    atomic_bool verify;         /* get every key once, then clear this */
    atomic_ulong changed, checked, bad;
};

/* Start the server and fill it. False, and errno: it could not be. */
bool database_init(struct database *database);
void database_burst(struct database *database);
void database_verify(struct database *database);

#endif
