/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * godwit: a vCPU that is held inside KVM_RUN
 *
 * Its mp_state is set to HALTED, so that it waits in the kernel, and any
 * interrupt that the kernel delivers wakes it there: then it is RUNNABLE and
 * runs the guest.  Afterwards, and before anything else can read its state, it
 * is made what it was, if it did not run.  Whether it did is told by RIP, too:
 * the guest may have come to a HLT of its own.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "system/kvm.h"
#include "hw/core/cpu.h"
#include "godwit-throttle.h"

#if defined(CONFIG_KVM) && defined(TARGET_I386)

static bool godwit_kvm_look(CPUState *cpu, uint32_t *state, uint64_t *rip)
{
    struct kvm_mp_state mp_state;
    struct kvm_regs regs;

    if (kvm_vcpu_ioctl(cpu, KVM_GET_MP_STATE, &mp_state) < 0 ||
        kvm_vcpu_ioctl(cpu, KVM_GET_REGS, &regs) < 0) {
        return false;
    }
    *state = mp_state.mp_state;
    *rip = regs.rip;
    return true;
}

static bool godwit_kvm_set(CPUState *cpu, uint32_t state)
{
    struct kvm_mp_state mp_state = { .mp_state = state };

    return kvm_vcpu_ioctl(cpu, KVM_SET_MP_STATE, &mp_state) >= 0;
}

bool godwit_kvm_halt(CPUState *cpu, uint64_t *was_at)
{
    uint32_t state;

    /* Without the kernel's irqchip nothing would wake it. */
    return kvm_enabled() && kvm_irqchip_in_kernel() &&
        /* What QEMU has to put yet may be another RIP. */
        !cpu->vcpu_dirty &&
        godwit_kvm_look(cpu, &state, was_at) &&
        state == KVM_MP_STATE_RUNNABLE &&
        godwit_kvm_set(cpu, KVM_MP_STATE_HALTED);
}

bool godwit_kvm_unhalt(CPUState *cpu, uint64_t was_at)
{
    uint32_t state;
    uint64_t rip;

    if (!godwit_kvm_look(cpu, &state, &rip)) {
        error_report("KVM does not say where vCPU %d is", cpu->cpu_index);
        state = KVM_MP_STATE_HALTED;
        rip = was_at;
    }
    if (state != KVM_MP_STATE_HALTED || rip != was_at) {
        return true;
    }
    if (!godwit_kvm_set(cpu, KVM_MP_STATE_RUNNABLE)) {
        error_report("KVM does not let vCPU %d go on", cpu->cpu_index);
    }
    return false;
}

#else

bool godwit_kvm_halt(CPUState *cpu, uint64_t *was_at)
{
    return false;
}

bool godwit_kvm_unhalt(CPUState *cpu, uint64_t was_at)
{
    return true;
}

#endif
