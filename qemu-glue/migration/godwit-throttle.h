/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: vCPUs held back so that a migration converges
 */

#ifndef QEMU_MIGRATION_GODWIT_THROTTLE_H
#define QEMU_MIGRATION_GODWIT_THROTTLE_H

#include "hw/core/cpu.h"
#include "qapi/qapi-types-migration.h"

/*
 * Is a migration running whose vCPUs are watched?  A relaxed read, all that
 * an accelerator's hooks cost while it is false.
 */
#ifdef CONFIG_GODWIT
extern bool godwit_governs;

static inline bool migration_godwit_governs(void)
{
    return qatomic_read(&godwit_governs);
}

/* The migration side: with the BQL. */
void migration_godwit_throttle_start(void);
void migration_godwit_throttle_stop(void);
/* The dirty bitmap was synchronized. */
void migration_godwit_throttle_round(void);
void migration_godwit_throttle_populate(MigrationInfo *info);

#else
/* Constant also where nothing is optimized: none of the below is linked. */
#define migration_godwit_governs() (0)

static inline void migration_godwit_throttle_stop(void)
{
}
#endif /* CONFIG_GODWIT */

/*
 * The accelerators' side: called while a migration is watched.  A page was
 * clean, and the vCPU, in its own thread, is about to dirty it; or so many
 * were found that it has dirtied.
 */
void godwit_dirtied(CPUState *cpu);
void godwit_reaped(CPUState *cpu, uint32_t pages);

/*
 * An interrupt is about to be raised for the vCPU, with the BQL, or for one
 * that is not known.
 */
void godwit_interrupt(CPUState *cpu, int mask);
void godwit_interrupt_held(void);

/*
 * In the thread of a vCPU, with the BQL.  May it run now?  The first asks
 * only; the second waits until it may, or until there is something else to
 * do for it.
 */
bool godwit_may_run(CPUState *cpu);
bool godwit_hold(CPUState *cpu);

/*
 * In the thread that has all vCPUs: if none of those that want to may run,
 * wait until one may or until there is something else to do.
 */
void godwit_hold_all(void);

/* Around the guest's running, in its thread; end takes what begin returned. */
int64_t godwit_run_begin(CPUState *cpu);
void godwit_run_end(CPUState *cpu, int64_t begun);

/*
 * Holds a vCPU inside its next KVM_RUN, in its thread and until the call of
 * unhalt that must follow it.  False: it cannot be, now or ever.  was_at: where
 * the guest is.  unhalt returns whether it ran.
 */
bool godwit_kvm_halt(CPUState *cpu, uint64_t *was_at);
bool godwit_kvm_unhalt(CPUState *cpu, uint64_t was_at);

static inline void migration_godwit_reaped(CPUState *cpu, uint32_t pages)
{
    if (migration_godwit_governs()) {
        godwit_reaped(cpu, pages);
    }
}

static inline void migration_godwit_interrupt(CPUState *cpu, int mask)
{
    if (migration_godwit_governs()) {
        godwit_interrupt(cpu, mask);
    }
}

static inline void migration_godwit_interrupt_held(void)
{
    if (migration_godwit_governs()) {
        godwit_interrupt_held();
    }
}

static inline bool migration_godwit_may_run(CPUState *cpu)
{
    return !migration_godwit_governs() || godwit_may_run(cpu);
}

static inline bool migration_godwit_hold(CPUState *cpu)
{
    return !migration_godwit_governs() || godwit_hold(cpu);
}

static inline void migration_godwit_hold_all(void)
{
    if (migration_godwit_governs()) {
        godwit_hold_all();
    }
}

static inline int64_t migration_godwit_run_begin(CPUState *cpu)
{
    return migration_godwit_governs() ? godwit_run_begin(cpu) : -1;
}

static inline void migration_godwit_run_end(CPUState *cpu, int64_t begun)
{
#ifdef CONFIG_GODWIT
    if (begun >= 0) {
        godwit_run_end(cpu, begun);
    }
#endif
}

#endif
