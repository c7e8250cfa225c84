/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main.c - the only program of a test guest: its init
 *
 *   ... -append "console=ttyS0 -- mb=400 burst=5000 sleep=50000 words=2 content=text"
 *
 *   mb=400        memory that is changed and checked, in MiB
 *   burst=5000    pages that a worker changes, then it
 *   sleep=40000   sleeps, in us, and for longer if need be to begin
 *   period=52600  one burst every so many us; 0: as often as it gets to it
 *   words=2       words changed in a page at a visit
 *   check=250     pages checked after each burst
 *   content=text  text, words (zstd 1 halves both), random, zero
 *   workers=1     threads that change pages, each on a vCPU of its own, from vCPU 0 on
 *   beat=20       ms from one heartbeat to the next
 *   echo=-1       vCPU of the thread that answers on the port "godwit.echo"; -1: any
 *   run=          a program to start beside it, with nothing in its way
 *   keys=0        of a database (guest/database.h) that is there as well, a power of two; 0: none
 *   updates=400   keys set in a burst, at the same pace
 *   reads=100     keys got and compared after it
 *
 * On the virtio-serial port "godwit.log" it writes lines:
 *   ready pages=N                                 once, when memory is filled
 *   beat SEQ t=MS changed=N checked=N bad=N gap=MS    the longest gap by its own clock
 *   verified pages=N bad=N                        after "verify"
 *   BAD page ...
 * and reads commands: "verify", "reset" (the gap), "eject CPU" (give a vCPU back), "set KEY=VALUE" (burst, sleep,
 * period, words, check).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "database.h"
#include "work.h"

#define MAX_WORKERS 16u

static struct pace pace;
static struct worker workers[MAX_WORKERS];
static unsigned n_workers = 1;
static struct database database = { .updates = 400, .reads = 100 };
static unsigned beat_ms = 20;
static int echo_cpu = -1;
static int log_fd = -1;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool reset_gap, verifying;

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t done = write(fd, bytes, len);

        if (done <= 0) {
            /* Nobody has the port open at the host yet. */
            usleep(10000);
            continue;
        }
        bytes += done;
        len -= (size_t)done;
    }
}

static void say(const char *line)
{
    char whole[512];
    int len = snprintf(whole, sizeof(whole), "%s\n", line);

    pthread_mutex_lock(&log_lock);
    write_all(log_fd, whole, (size_t)len);
    pthread_mutex_unlock(&log_lock);
}

static void complain(const char *line)
{
    say(line);
    puts(line);     /* and on the console, whose log outlives the port */
}

static void die(const char *what)
{
    perror(what);
    sleep(3600);
    exit(1);
}

/* --- parameters ------------------------------------------------------------------------------------ */

static bool set(const char *key, const char *value)
{
    static const struct {
        const char *key;
        atomic_uint *to;
    } paces[] = {
        { "burst", &pace.burst_pages }, { "sleep", &pace.sleep_us },
        { "period", &pace.period_us }, { "words", &pace.words }, { "check", &pace.check_pages },
    };

    for (unsigned i = 0; i < sizeof(paces) / sizeof(*paces); i++) {
        if (!strcmp(key, paces[i].key)) {
            unsigned number = (unsigned)atoi(value);

            if (paces[i].to == &pace.words && (number < 1 || number > PAGE_WORDS)) {
                return false;
            }
            atomic_store_explicit(paces[i].to, number, memory_order_relaxed);
            return true;
        }
    }
    return false;
}

static uint64_t total(size_t counter)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n_workers; i++) {
        atomic_ulong *count = (atomic_ulong *)((char *)&workers[i] + counter);

        sum += atomic_load_explicit(count, memory_order_relaxed);
    }
    return sum;
}
#define TOTAL(counter) (total(offsetof(struct worker, counter)) + \
                        atomic_load_explicit(&database.counter, memory_order_relaxed))

/* --- threads ----------------------------------------------------------------------------------------- */

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

static void start(void *(*body)(void *), void *argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, argument)) {
        die("pthread_create");
    }
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Sleep until the next burst is due. */
static void rest(uint64_t *next_us)
{
    uint64_t period_us, t_us;

    usleep(atomic_load_explicit(&pace.sleep_us, memory_order_relaxed));
    period_us = atomic_load_explicit(&pace.period_us, memory_order_relaxed);
    t_us = now_us();
    *next_us += period_us;
    if (*next_us > t_us) {
        usleep((useconds_t)(*next_us - t_us));
    } else if (*next_us + period_us < t_us) {
        /* What was missed by more than one burst is not made up for. */
        *next_us = t_us;
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint64_t next_us = now_us();

    pin((int)(worker->number % (unsigned)sysconf(_SC_NPROCESSORS_ONLN)));
    for (;;) {
        worker_burst(worker);
        worker_check(worker, atomic_load_explicit(&pace.check_pages, memory_order_relaxed));
        if (atomic_load_explicit(&worker->verify, memory_order_relaxed)) {
            worker_verify(worker);
        }
        rest(&next_us);
    }
    return NULL;
}

static void *use_database(void *argument)
{
    struct database *db = argument;
    uint64_t next_us = now_us();

    while (!db->is_lost) {
        database_burst(db);
        if (atomic_load_explicit(&db->verify, memory_order_relaxed)) {
            database_verify(db);
        }
        rest(&next_us);
    }
    return NULL;
}

static void report_verified(void)
{
    char line[128];

    for (unsigned i = 0; i < n_workers; i++) {
        if (atomic_load_explicit(&workers[i].verify, memory_order_relaxed)) {
            return;
        }
    }
    if (atomic_load_explicit(&database.verify, memory_order_relaxed)) {
        return;
    }
    atomic_store(&verifying, false);
    snprintf(line, sizeof(line), "verified pages=%llu bad=%llu",
             (unsigned long long)total(offsetof(struct worker, pages)), (unsigned long long)TOTAL(bad));
    say(line);
}

static void *beat(void *argument)
{
    struct sched_param priority = { .sched_priority = 50 };
    struct timespec next;
    uint64_t last_us = now_us(), gap_us = 0;

    sched_setscheduler(0, SCHED_FIFO, &priority);
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (uint64_t seq = 1;; seq++) {
        uint64_t t_us;
        char line[256];

        next.tv_nsec += (long)beat_ms * 1000000;
        while (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        t_us = now_us();
        if (atomic_exchange(&reset_gap, false)) {
            gap_us = 0;
        }
        if (t_us - last_us > gap_us) {
            gap_us = t_us - last_us;
        }
        last_us = t_us;
        snprintf(line, sizeof(line), "beat %llu t=%llu.%03llu changed=%llu checked=%llu bad=%llu gap=%llu.%03llu",
                 (unsigned long long)seq, (unsigned long long)t_us / 1000, (unsigned long long)t_us % 1000,
                 (unsigned long long)TOTAL(changed), (unsigned long long)TOTAL(checked),
                 (unsigned long long)TOTAL(bad), (unsigned long long)gap_us / 1000,
                 (unsigned long long)gap_us % 1000);
        say(line);
        if (atomic_load(&verifying)) {
            report_verified();
        }
    }
    return argument;
}

static void *answer(void *argument)
{
    int fd = *(int *)argument;
    char bytes[256];

    if (echo_cpu >= 0) {
        pin(echo_cpu);
    }
    for (;;) {
        ssize_t got = read(fd, bytes, sizeof(bytes));

        if (got > 0) {
            write_all(fd, bytes, (size_t)got);
        } else {
            usleep(10000);
        }
    }
    return NULL;
}

/* As if the host had asked for it. */
static void eject(int cpu)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/firmware_node/eject", cpu);
    fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, "1", 1) != 1) {
        say("error: there is no such vCPU, or it cannot be given back");
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void obey(char *line)
{
    char *value = strchr(line, '=');

    if (!strcmp(line, "verify")) {
        for (unsigned i = 0; i < n_workers; i++) {
            atomic_store_explicit(&workers[i].verify, true, memory_order_relaxed);
        }
        atomic_store_explicit(&database.verify, database.keys, memory_order_relaxed);
        atomic_store(&verifying, true);
    } else if (!strcmp(line, "reset")) {
        atomic_store(&reset_gap, true);
    } else if (!strncmp(line, "eject ", 6)) {
        eject(atoi(line + 6));
    } else if (!strncmp(line, "set ", 4) && value) {
        *value = 0;
        if (!set(line + 4, value + 1)) {
            say("error: no such parameter, or not in its range");
        }
    } else {
        say("error: no such command");
    }
}

/* --- init ---------------------------------------------------------------------------------------------- */

static void load_modules(void)
{
    /* In the order of their needs, as mkguest numbered them. */
    for (unsigned i = 0; i < 16; i++) {
        char path[32];
        int fd;

        snprintf(path, sizeof(path), "/modules/%02u.ko", i);
        fd = open(path, O_RDONLY);
        if (fd < 0) {
            return;
        }
        if (syscall(SYS_finit_module, fd, "", 0)) {
            perror(path);
        }
        close(fd);
    }
}

/* A port appears when the host has told of it. */
static int open_port(const char *name, unsigned wait_ms)
{
    for (unsigned waited = 0; waited <= wait_ms; waited += 10) {
        DIR *ports = opendir("/sys/class/virtio-ports");

        for (struct dirent *entry; ports && (entry = readdir(ports));) {
            char path[320], found[64] = "";
            FILE *file;

            snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
            file = fopen(path, "r");
            if (!file) {
                continue;
            }
            if (!fgets(found, sizeof(found), file)) {
                found[0] = 0;
            }
            fclose(file);
            found[strcspn(found, "\n")] = 0;
            if (!strcmp(found, name)) {
                closedir(ports);
                snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
                return open(path, O_RDWR);
            }
        }
        if (ports) {
            closedir(ports);
        }
        usleep(10000);
    }
    return -1;
}

static void run_beside(char *command)
{
    if (!fork()) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        perror("/bin/sh");
        _exit(1);
    }
}

int main(int argc, char **argv)
{
    static int echo_fd;
    uint64_t mb = 400, first = 0;
    enum content content = CONTENT_TEXT;
    char *beside = NULL, commands[256];
    size_t held = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    set("burst", "5000");
    set("sleep", "40000");
    set("period", "52600");
    set("words", "2");
    set("check", "250");
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');

        if (!value) {
            continue;
        }
        *value++ = 0;
        if (!strcmp(argv[i], "mb")) {
            mb = (uint64_t)atoi(value);
        } else if (!strcmp(argv[i], "content")) {
            content = !strcmp(value, "random") ? CONTENT_RANDOM : !strcmp(value, "zero") ? CONTENT_ZERO :
                      !strcmp(value, "words") ? CONTENT_WORDS : CONTENT_TEXT;
        } else if (!strcmp(argv[i], "workers")) {
            n_workers = (unsigned)atoi(value);
        } else if (!strcmp(argv[i], "beat")) {
            beat_ms = (unsigned)atoi(value);
        } else if (!strcmp(argv[i], "echo")) {
            echo_cpu = atoi(value);
        } else if (!strcmp(argv[i], "run")) {
            beside = value;
        } else if (!strcmp(argv[i], "keys")) {
            database.keys = (unsigned)atoi(value);
        } else if (!strcmp(argv[i], "updates")) {
            database.updates = (unsigned)atoi(value);
        } else if (!strcmp(argv[i], "reads")) {
            database.reads = (unsigned)atoi(value);
        } else if (!set(argv[i], value)) {
            printf("no such parameter: %s\n", argv[i]);
        }
    }
    if (n_workers < 1 || n_workers > MAX_WORKERS || beat_ms < 1 || mb < 1) {
        die("parameters out of range");
    }
    load_modules();
    log_fd = open_port("godwit.log", 10000);
    if (log_fd < 0) {
        die("no port godwit.log");
    }
    work_complain = complain;
    content_init();
    for (unsigned i = 0; i < n_workers; i++) {
        uint64_t pages = mb * 256 / n_workers;

        workers[i].pace = &pace;
        workers[i].number = i;
        workers[i].content = content;
        workers[i].first = first;
        workers[i].pages = pages;
        first += pages;
        if (!worker_init(&workers[i])) {
            die("memory");
        }
    }
    if (beside) {
        run_beside(beside);
    }
    if (database.keys && !database_init(&database)) {
        die("database");
    }
    echo_fd = open_port("godwit.echo", 0);
    if (echo_fd >= 0) {
        start(answer, &echo_fd);
    }
    snprintf(commands, sizeof(commands), "ready pages=%llu", (unsigned long long)first);
    say(commands);
    for (unsigned i = 0; i < n_workers; i++) {
        start(work, &workers[i]);
    }
    if (database.keys) {
        start(use_database, &database);
    }
    start(beat, NULL);
    for (;;) {
        ssize_t got = read(log_fd, commands + held, sizeof(commands) - 1 - held);
        char *end;

        if (got <= 0) {
            usleep(10000);
            continue;
        }
        held += (size_t)got;
        commands[held] = 0;
        while ((end = strchr(commands, '\n'))) {
            *end = 0;
            obey(commands);
            held -= (size_t)(end + 1 - commands);
            memmove(commands, end + 1, held + 1);
        }
        if (held == sizeof(commands) - 1) {
            held = 0;
        }
    }
}
