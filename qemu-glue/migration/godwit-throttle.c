/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: the governor's place in QEMU
 *
 * With x-godwit and auto-converge the library's governor decides whom to hold
 * back, from what each vCPU dirties; here are its clock, its counters, and the
 * holds.  A step on the main loop every 100 ms tells it how fast pages leave
 * and how many are left, and takes new rates.  Between steps each vCPU's
 * thread asks whether it may run before it enters the guest, and waits on its
 * halt_cond if not: whatever kicks the vCPU ends the wait, and an interrupt
 * lets it run for a moment whatever it owes.
 *
 * A thread gets out of the guest in time, under TCG, as a page that is dirtied
 * anew looks at the clock: a vCPU that dirties nothing is never disturbed.
 * With KVM a timer kicks it.
 *
 * What is charged are pages, counted as they are dirtied: by TCG, and by KVM
 * with its dirty ring.  KVM's bitmaps do not say which vCPU it was: there the
 * pages that a sync finds are taken to come alike from all CPU time since the
 * last one.
 *
 * Who touches what:
 *  - a vCPU's state is made, charged and asked by its own thread, in
 *    the library's words [own]; making it is queued work, so that nobody else
 *    sees it half made.  Slots are never freed: a thread may look at its own at
 *    any time
 *  - steps, interrupts, statistics, start and end: with the BQL
 *  - godwit_governs is written with the BQL and read without.  Who reads an
 *    old value counts a little longer, or begins a little later
 */

#include "qemu/osdep.h"

#include <godwit/throttle.h>

#include "exec/cpu-common.h"
#include "exec/cpu-interrupt.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/timer.h"
#include "system/cpu-throttle.h"
#include "system/cpu-timers.h"
#include "system/cpus.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "godwit.h"
#include "godwit-int.h"
#include "godwit-throttle.h"
#include "migration.h"
#include "migration-stats.h"
#include "options.h"
#include "ram.h"
#include "trace.h"

/*
 * In a hold inside KVM_RUN an interrupt lets a vCPU run, and nobody looks until
 * the kick.
 */
#define GODWIT_HALTED_NS (2 * SCALE_MS)

/* Steps over which the speed of the channel is measured: a second. */
#define GODWIT_SPEED_STEPS 10

typedef struct {
    uint8_t memory[GODWIT_VCPU_BYTES] QEMU_ALIGNED(GODWIT_THROTTLE_ALIGN);
    struct godwit_vcpu *vcpu;   /* stays, once it was made */
    bool is_made;               /* for this migration */
    bool is_asked_for;          /* its making is queued */
    int64_t look_ns;            /* [own] leave the guest then */
    QEMUTimer *kick;            /* KVM: does so */
    double owed;                /* [own] part of a page that is not charged */
    bool is_halted;             /* [own] it is held inside KVM_RUN */
    uint64_t halted_at;         /* [own] by RIP */
} GodwitVcpu;

typedef struct {
    int64_t at_ns;
    uint64_t bytes;
} GodwitSent;

/* Totals, when a round of the migration began. */
typedef struct {
    int64_t at_ns;                      /* 0: there was none */
    uint64_t remaining_pages;
    uint64_t sent_pages;
    uint64_t dirtied_pages;             /* by vCPUs */
    uint64_t ran_ns;                    /* of vCPUs */
} GodwitRound;

typedef struct {
    uint8_t memory[GODWIT_THROTTLE_BYTES] QEMU_ALIGNED(GODWIT_THROTTLE_ALIGN);
    struct godwit_throttle *throttle;   /* NULL: no migration had one */
    QEMUTimer *timer;

    /* By cpu_index. */
    GodwitVcpu *slot;
    unsigned nr_slots;
    struct godwit_vcpu **vcpus;         /* scratch of a step */

    GodwitSent sent[GODWIT_SPEED_STEPS];
    unsigned nr_sent;

    /* At the last sync. */
    GodwitRound round;
    uint64_t device_pages_per_s;
    double pages_per_ns;                /* of CPU time, if none are counted */
} GodwitGovernor;

bool godwit_governs;

static GodwitGovernor governor;

/* ---- vCPUs ---- */

static GodwitVcpu *godwit_slot(CPUState *cpu)
{
    GodwitVcpu *slot;

    if ((unsigned)cpu->cpu_index >= governor.nr_slots) {
        return NULL;
    }
    slot = &governor.slot[cpu->cpu_index];
    return slot->is_made ? slot : NULL;
}

static void godwit_kick(void *opaque)
{
    qemu_cpu_kick(opaque);
}

static void godwit_make_vcpu(CPUState *cpu, run_on_cpu_data data)
{
    GodwitVcpu *slot = &governor.slot[cpu->cpu_index];

    slot->vcpu = godwit_vcpu_init(slot->memory, get_clock());
    slot->look_ns = get_clock();
    slot->owed = 0;
    if (kvm_enabled()) {
        /* The CPU with this index may be another than the last time. */
        timer_free(slot->kick);
        slot->kick = timer_new_ns(QEMU_CLOCK_REALTIME, godwit_kick, cpu);
    }
    slot->is_made = true;
}

/* Closes the account of a hold that is over. */
static void godwit_settle_vcpu(CPUState *cpu, run_on_cpu_data data)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    if (slot) {
        godwit_vcpu_may_run(slot->vcpu, get_clock());
    }
}

/* Fill in vcpus; who is new is asked to make itself, and is there next time. */
static unsigned godwit_list_vcpus(void)
{
    unsigned n = 0;
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        GodwitVcpu *slot = godwit_slot(cpu);

        if (slot) {
            governor.vcpus[n++] = slot->vcpu;
        } else if ((unsigned)cpu->cpu_index < governor.nr_slots &&
                   !governor.slot[cpu->cpu_index].is_asked_for) {
            governor.slot[cpu->cpu_index].is_asked_for = true;
            async_run_on_cpu(cpu, godwit_make_vcpu, RUN_ON_CPU_NULL);
        }
    }
    return n;
}

static void godwit_sum_vcpus(uint64_t *pages, uint64_t *ran_ns)
{
    *pages = *ran_ns = 0;
    for (unsigned i = 0; i < governor.nr_slots; i++) {
        struct godwit_vcpu_stats stats = GODWIT_VCPU_STATS_INIT;

        if (governor.slot[i].is_made) {
            godwit_vcpu_stats(governor.slot[i].vcpu, &stats);
            *pages += stats.pages;
            *ran_ns += stats.ran_ns;
        }
    }
}

/*
 * All holds end: the work that is queued kicks those who wait.  The thread of a
 * vCPU that has stopped touches nothing, and its account is closed here.  It
 * would be later by itself: a migration that ends keeps the BQL from it until
 * all is sent, and what it waited for that is not a hold.
 */
static void godwit_release(void)
{
    CPUState *cpu;

    godwit_throttle_stop(governor.throttle, governor.vcpus,
                         godwit_list_vcpus());
    CPU_FOREACH(cpu) {
        if (cpu->stopped) {
            godwit_settle_vcpu(cpu, RUN_ON_CPU_NULL);
        } else {
            async_run_on_cpu(cpu, godwit_settle_vcpu, RUN_ON_CPU_NULL);
        }
    }
}

/* ---- steps ---- */

static bool godwit_counts_pages(void)
{
    return tcg_enabled() || kvm_dirty_ring_enabled();
}

/*
 * Guest pages per second that left, over a second: the rate limit lets them
 * go by windows of 100 ms.
 */
static uint64_t godwit_pages_per_s(int64_t now_ns)
{
    GodwitSent now = { now_ns, migration_godwit_retired_bytes() };
    GodwitSent *slot = &governor.sent[governor.nr_sent % GODWIT_SPEED_STEPS];
    GodwitSent then = governor.nr_sent < GODWIT_SPEED_STEPS ?
        governor.sent[0] : *slot;

    *slot = now;
    governor.nr_sent++;
    if (governor.nr_sent < 3 || now.at_ns <= then.at_ns) {
        return 0;
    }
    return (double)(now.bytes - then.bytes) / qemu_target_page_size() *
        NANOSECONDS_PER_SECOND / (now.at_ns - then.at_ns);
}

static uint64_t godwit_threshold_pages(uint64_t remaining_pages)
{
    uint64_t threshold = migrate_get_current()->threshold_size;
    uint64_t pages = MAX(remaining_pages, 1);

    if (!migration_godwit_active()) {
        return threshold / qemu_target_page_size();
    }
    return (double)(threshold - MIN(threshold, godwit_other_bytes())) * pages /
        godwit_page_bytes(pages);
}

static uint32_t godwit_max_percent(void)
{
    return MIN(migrate_godwit_throttle_max(), migrate_max_cpu_throttle());
}

static void godwit_step(void *opaque)
{
    struct godwit_throttle_input input = GODWIT_THROTTLE_INPUT_INIT;
    struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;
    uint64_t page = qemu_target_page_size(), ran_ns;
    int64_t now_ns = get_clock();

    timer_mod(governor.timer, now_ns + GODWIT_THROTTLE_PERIOD_NS);
    input.now_ns = now_ns;
    /* The first pass says little of the speed: most of it may be zeros. */
    input.is_first_pass = stat64_get(&mig_stats.dirty_sync_count) <= 1;
    if (input.is_first_pass) {
        governor.nr_sent = 0;
    }
    input.send_pages_per_s = godwit_pages_per_s(now_ns);
    input.remaining_pages = ram_bytes_remaining() / page;
    input.round_pages = stat64_get(&mig_stats.dirty_bytes_last_sync) / page;
    godwit_sum_vcpus(&input.dirtied_pages, &ran_ns);
    input.dirtied_pages -= governor.round.dirtied_pages;
    input.device_pages_per_s = governor.device_pages_per_s;
    input.threshold_pages = godwit_threshold_pages(input.remaining_pages);
    input.is_active = runstate_is_running() &&
        migrate_get_current()->state == MIGRATION_STATUS_ACTIVE;
    godwit_throttle_set_max(governor.throttle, godwit_max_percent());
    godwit_throttle_step(governor.throttle, &input, governor.vcpus,
                         godwit_list_vcpus());

    godwit_throttle_stats(governor.throttle, &stats);
    trace_migration_godwit_throttle(godwit_throttle_state_name(stats.state),
        input.send_pages_per_s, input.remaining_pages, input.round_pages,
        input.dirtied_pages, input.threshold_pages, stats.wanted_pages_per_s,
        stats.allowed_pages_per_s, stats.level_pages_per_s);
}

/* What is new in the bitmap, and who it was: vCPUs, as counted, or devices. */
static void godwit_compare(const GodwitRound *then, const GodwitRound *now)
{
    int64_t ns = now->at_ns - then->at_ns;
    int64_t fresh = now->remaining_pages - then->remaining_pages +
        now->sent_pages - then->sent_pages;
    int64_t counted = now->dirtied_pages - then->dirtied_pages;
    uint64_t ran_ns = now->ran_ns - then->ran_ns;

    if (!godwit_counts_pages()) {
        governor.pages_per_ns = ran_ns ? (double)MAX(fresh, 0) / ran_ns : 0;
    } else {
        governor.device_pages_per_s = ns <= 0 ? 0 :
            (double)MAX(fresh - counted, 0) * NANOSECONDS_PER_SECOND / ns;
    }
}

void migration_godwit_throttle_round(void)
{
    uint64_t page = qemu_target_page_size();
    GodwitRound now = {
        .at_ns = get_clock(),
        .remaining_pages = stat64_get(&mig_stats.dirty_bytes_last_sync) / page,
        .sent_pages = migration_godwit_retired_bytes() / page,
    };

    godwit_sum_vcpus(&now.dirtied_pages, &now.ran_ns);
    if (governor.round.at_ns) {
        godwit_compare(&governor.round, &now);
    }
    governor.round = now;
}

/* ---- beginning and end ---- */

static void godwit_vm_state(void *opaque, bool running, RunState state)
{
    if (!running && godwit_governs) {
        godwit_release();
    }
}

static void godwit_init(void)
{
    unsigned max_cpus = current_machine->smp.max_cpus;

    governor.slot = qemu_memalign(GODWIT_THROTTLE_ALIGN,
                                  max_cpus * sizeof(GodwitVcpu));
    memset(governor.slot, 0, max_cpus * sizeof(GodwitVcpu));
    governor.vcpus = g_new(struct godwit_vcpu *, max_cpus);
    governor.timer = timer_new_ns(QEMU_CLOCK_REALTIME, godwit_step, NULL);
    governor.nr_slots = max_cpus;
    qemu_add_vm_change_state_handler(godwit_vm_state, NULL);
}

/* icount: the guest's time would stand still while it is held. */
static bool godwit_can_govern(void)
{
    return kvm_enabled() || (tcg_enabled() && !icount_enabled());
}

void migration_godwit_throttle_start(void)
{
    if (!migrate_auto_converge() || !godwit_can_govern()) {
        governor.throttle = NULL;
        return;
    }
    if (!governor.slot) {
        godwit_init();
    }
    if (godwit_counts_pages()) {
        /* No sync is needed to know of them. */
        cpu_throttle_dirty_sync_timer(false);
    }
    for (unsigned i = 0; i < governor.nr_slots; i++) {
        governor.slot[i].is_made = false;
        governor.slot[i].is_asked_for = false;
    }
    governor.throttle = godwit_throttle_init(governor.memory,
                                             godwit_max_percent());
    governor.nr_sent = 0;
    governor.round = (GodwitRound) {};
    governor.device_pages_per_s = 0;
    governor.pages_per_ns = 0;
    qatomic_set(&godwit_governs, true);
    godwit_step(NULL);
}

void migration_godwit_throttle_stop(void)
{
    if (!godwit_governs) {
        return;
    }
    qatomic_set(&godwit_governs, false);
    timer_del(governor.timer);
    godwit_release();
}

/* ---- the vCPUs' threads ---- */

void godwit_dirtied(CPUState *cpu)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    if (slot) {
        godwit_vcpu_dirtied(slot->vcpu, 1);
        if (get_clock() >= slot->look_ns) {
            cpu_exit(cpu);
        }
    }
}

void godwit_reaped(CPUState *cpu, uint32_t pages)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    if (slot) {
        godwit_vcpu_dirtied(slot->vcpu, pages);
    }
}

void godwit_interrupt(CPUState *cpu, int mask)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    /* One that it raises itself it takes at once, for it runs. */
    if (slot && cpu != current_cpu && (mask & ~CPU_INTERRUPT_EXITTB)) {
        godwit_vcpu_io(slot->vcpu, get_clock());
    }
}

static void godwit_wake(void *opaque)
{
    CPUState *cpu;

    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cpu) {
        if (godwit_slot(cpu)) {
            qemu_cond_broadcast(cpu->halt_cond);
        }
    }
}

void godwit_interrupt_held(void)
{
    bool is_any = false;
    CPUState *cpu;

    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cpu) {
        struct godwit_vcpu_stats stats = GODWIT_VCPU_STATS_INIT;
        GodwitVcpu *slot = godwit_slot(cpu);

        if (!slot) {
            continue;
        }
        godwit_vcpu_stats(slot->vcpu, &stats);
        if (stats.is_held) {
            godwit_vcpu_io(slot->vcpu, get_clock());
            is_any = true;
        }
    }
    if (!is_any) {
        return;
    }
    /*
     * A held vCPU looks and falls asleep with the BQL: without it the wake may
     * come between.
     */
    if (bql_locked()) {
        godwit_wake(NULL);
    } else {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), godwit_wake, NULL);
    }
}

static int64_t godwit_thread_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

int64_t godwit_run_begin(CPUState *cpu)
{
    GodwitVcpu *slot = godwit_slot(cpu);
    int64_t now_ns;

    if (!slot) {
        return -1;
    }
    now_ns = get_clock();
    slot->look_ns = now_ns + godwit_vcpu_next(slot->vcpu, now_ns);
    if (slot->is_halted) {
        slot->look_ns = MIN(slot->look_ns, now_ns + GODWIT_HALTED_NS);
    }
    if (slot->kick) {
        timer_mod(slot->kick, slot->look_ns);
    }
    return godwit_thread_ns();
}

void godwit_run_end(CPUState *cpu, int64_t begun)
{
    GodwitVcpu *slot = &governor.slot[cpu->cpu_index];
    int64_t ran_ns = godwit_thread_ns() - begun;

    if (slot->is_halted) {
        slot->is_halted = false;
        if (godwit_kvm_unhalt(cpu, slot->halted_at)) {
            godwit_vcpu_io(slot->vcpu, get_clock());
        } else {
            ran_ns = 0;     /* KVM's polling for an interrupt */
        }
    }
    if (!slot->is_made) {
        return;
    }
    if (slot->kick) {
        timer_del(slot->kick);
        slot->owed += governor.pages_per_ns * ran_ns;
        godwit_vcpu_dirtied(slot->vcpu, slot->owed);
        slot->owed -= (uint64_t)slot->owed;
    }
    godwit_vcpu_advance(slot->vcpu, get_clock(), ran_ns);
}

static bool godwit_wants_to_run(CPUState *cpu)
{
    return cpu_can_run(cpu) && (!cpu->halted || cpu_has_work(cpu));
}

static bool godwit_has_to_do(CPUState *cpu)
{
    return cpu->stop || cpu->unplug || !cpu_work_list_empty(cpu);
}

bool godwit_may_run(CPUState *cpu)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    return !slot || !godwit_wants_to_run(cpu) ||
        godwit_vcpu_may_run(slot->vcpu, get_clock());
}

/* How long it cannot run if nothing happens, in ms and not less. */
static int godwit_hold_ms(CPUState *cpu)
{
    uint64_t ns = godwit_vcpu_next(godwit_slot(cpu)->vcpu, get_clock());

    return DIV_ROUND_UP(ns, SCALE_MS);
}

/*
 * Inside KVM_RUN, if it is asked for and can be: interrupts that QEMU does not
 * see end the hold there, and so who may not run for them is not held there.
 */
static bool godwit_hold_halted(CPUState *cpu)
{
    GodwitVcpu *slot = godwit_slot(cpu);

    slot->is_halted = migrate_get_current()->godwit_halted_hold &&
        godwit_vcpu_may_boost(slot->vcpu) &&
        godwit_kvm_halt(cpu, &slot->halted_at);
    return slot->is_halted;
}

bool godwit_hold(CPUState *cpu)
{
    while (!godwit_may_run(cpu)) {
        if (godwit_has_to_do(cpu)) {
            return false;
        }
        if (godwit_hold_halted(cpu)) {
            return true;
        }
        qemu_cond_timedwait_bql(cpu->halt_cond, godwit_hold_ms(cpu));
    }
    return true;
}

void godwit_hold_all(void)
{
    CPUState *cpu;
    int ms = 0;

    CPU_FOREACH(cpu) {
        if (godwit_has_to_do(cpu)) {
            return;
        }
        if (godwit_wants_to_run(cpu)) {
            int hold_ms;

            if (godwit_may_run(cpu)) {
                return;
            }
            hold_ms = godwit_hold_ms(cpu);
            ms = ms ? MIN(ms, hold_ms) : hold_ms;
        }
    }
    if (ms) {
        qemu_cond_timedwait_bql(first_cpu->halt_cond, ms);
    }
}

/* ---- statistics ---- */

void migration_godwit_throttle_populate(MigrationInfo *info)
{
    struct godwit_throttle_stats stats = GODWIT_THROTTLE_STATS_INIT;
    GodwitThrottleVcpuList **tail;
    GodwitThrottleStats *to;

    if (!governor.throttle) {
        return;
    }
    godwit_throttle_stats(governor.throttle, &stats);
    to = info->godwit_throttle = g_new0(GodwitThrottleStats, 1);
    to->state = (GodwitThrottleState)stats.state;
    to->max = stats.max_percent;
    to->level = stats.level_pages_per_s;
    to->wanted = stats.wanted_pages_per_s;
    to->allowed = stats.allowed_pages_per_s;
    to->governed = stats.governed;
    to->has_release_time = stats.release_ns != UINT64_MAX;
    to->release_time = to->has_release_time ? stats.release_ns / SCALE_MS : 0;
    to->was_infeasible = stats.is_infeasible;
    to->was_futile = stats.is_futile;
    tail = &to->vcpus;
    for (unsigned i = 0; i < governor.nr_slots; i++) {
        struct godwit_vcpu_stats from = GODWIT_VCPU_STATS_INIT;
        GodwitThrottleVcpu *vcpu;

        if (!governor.slot[i].is_made) {
            continue;
        }
        godwit_vcpu_stats(governor.slot[i].vcpu, &from);
        vcpu = g_new0(GodwitThrottleVcpu, 1);
        vcpu->cpu_index = i;
        vcpu->level = from.rate_pages_per_s;
        vcpu->held = from.is_held;
        vcpu->taken = from.taken_percent;
        vcpu->held_time = from.held_ns;
        vcpu->longest_hold = from.longest_hold_ns;
        vcpu->ran_time = from.ran_ns;
        vcpu->holds = from.holds;
        vcpu->boosts = from.boosts;
        vcpu->interrupts = from.io_events;
        vcpu->pages = from.pages;
        QAPI_LIST_APPEND(tail, vcpu);
        /* Of all, exactly: the governor's own sums are those of its steps. */
        to->held_time += from.held_ns;
        to->longest_hold = MAX(to->longest_hold, from.longest_hold_ns);
        to->holds += from.holds;
        to->boosts += from.boosts;
        to->pages += from.pages;
    }
    to->pages_charged = stats.pages_charged;
}

QEMU_BUILD_BUG_ON((int)GODWIT_THROTTLE_STATE_IDLE !=
                  (int)GODWIT_THROTTLE_IDLE);
QEMU_BUILD_BUG_ON((int)GODWIT_THROTTLE_STATE_LEVEL !=
                  (int)GODWIT_THROTTLE_LEVEL);
QEMU_BUILD_BUG_ON((int)GODWIT_THROTTLE_STATE_FUTILE !=
                  (int)GODWIT_THROTTLE_FUTILE);
