/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bare.c - a test guest without an operating system, for where none boots
 *
 * One vCPU changes pages as fast as it can, for ever, and checks each one before: what it holds is known from
 * other memory. On the first serial port it says what guest/main.c says, and it knows "verify". On the second it
 * sends back whatever comes, in its interrupt handler: a hold that an interrupt does not end shows there.
 *
 * Few instructions, for a KVM that runs in a virtual machine may emulate each of them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_PORT 0x3f8u
#define ECHO_PORT 0x2f8u
#define ECHO_IRQ 3u
#define IRQ_VECTOR 32u
#define CODE64 24u
#define APIC ((volatile uint32_t *)0xfee00000ul)

#define PAGE_WORDS 512u
#define PAGES 1024u                     /* above 16 MiB */
#define MEMORY ((volatile uint64_t (*)[PAGE_WORDS])(16ul << 20))
#define PIT_MS 10u                      /* over which the clock is measured */
#define PIT_HZ 1193182u
#define BEAT_MS 20u

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

static struct gate idt[256];
static uint64_t sums[PAGES];            /* of all words of a page */
static uint64_t generations[PAGES];
static uint64_t ticks_per_ms, begun, last_beat, longest_gap;
static uint64_t beats, changed, checked, bad;
static char line[192];
static unsigned line_bytes;
static char command[32];
static unsigned command_bytes;

/* ---- the machine ---- */

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* All of it in one exit. */
static void out_bytes(uint16_t port, const char *bytes, size_t len)
{
    __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(len) : "d"(port) : "memory");
}

static uint64_t now(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* Both interrupt controllers, vectors from IRQ_VECTOR on, all masked but one; the APIC lets them through. */
static void set_up_pic(void)
{
    APIC[0xf0 / 4] = 0x1ff;
    APIC[0x350 / 4] = 0x700;
    out8(0x20, 0x11);
    out8(0xa0, 0x11);
    out8(0x21, IRQ_VECTOR);
    out8(0xa1, IRQ_VECTOR + 8);
    out8(0x21, 4);
    out8(0xa1, 2);
    out8(0x21, 1);
    out8(0xa1, 1);
    out8(0x21, (uint8_t)~(1u << ECHO_IRQ));
    out8(0xa1, 0xff);
}

static void set_up_uart(uint16_t port, bool with_interrupts)
{
    out8(port + 3, 3);                  /* 8 bits */
    out8(port + 2, 7);                  /* FIFOs on, and empty */
    out8(port + 4, 0x0b);               /* ready; interrupts reach the controller */
    out8(port + 1, with_interrupts);    /* when a byte has come */
}

static void set_gate(unsigned vector, void (*handler)(void *))
{
    uint64_t at = (uint64_t)handler;

    idt[vector] = (struct gate){
        .offset_low = (uint16_t)at, .selector = CODE64, .type = 0x8e,
        .offset_middle = (uint16_t)(at >> 16), .offset_high = (uint32_t)(at >> 32),
    };
}

__attribute__((interrupt)) static void on_echo(void *frame)
{
    (void)frame;
    while (in8(ECHO_PORT + 5) & 1) {
        out8(ECHO_PORT, in8(ECHO_PORT));
    }
    out8(0x20, 0x20);
}

static void set_up_interrupts(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = { sizeof(idt) - 1, (uint64_t)idt };

    set_gate(IRQ_VECTOR + ECHO_IRQ, on_echo);
    __asm__ volatile("lidt %0" : : "m"(pointer));
    set_up_pic();
    __asm__ volatile("sti");
}

/* Against the third channel of the timer, which counts down once. */
static uint64_t measure_ticks_per_ms(void)
{
    unsigned count = PIT_HZ * PIT_MS / 1000;
    uint64_t from;

    out8(0x61, (uint8_t)((in8(0x61) & ~2u) | 1));
    out8(0x43, 0xb0);
    out8(0x42, (uint8_t)count);
    out8(0x42, (uint8_t)(count >> 8));
    from = now();
    while (!(in8(0x61) & 0x20)) {
    }
    return (now() - from) / PIT_MS;
}

/* ---- lines ---- */

static void put(const char *text)
{
    while (*text && line_bytes < sizeof(line)) {
        line[line_bytes++] = *text++;
    }
}

static void put_number(uint64_t number)
{
    char digits[21];
    unsigned at = sizeof(digits) - 1;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    put(digits + at);
}

static void put_figure(const char *name, uint64_t number)
{
    put(name);
    put_number(number);
}

static void put_line(void)
{
    put("\n");
    out_bytes(LOG_PORT, line, line_bytes);
    line_bytes = 0;
}

/* ---- pages ---- */

/* Distinct words of which few bytes are zero. */
static uint64_t mix(uint64_t word)
{
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
    return word ^ word >> 27;
}

static void fill(unsigned page)
{
    volatile uint64_t *to = MEMORY[page];
    uint64_t word = mix(page + 1), count = PAGE_WORDS;

    __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(word) : "memory");
    sums[page] = word * PAGE_WORDS;
    generations[page] = word;
}

static void write_word(unsigned page, unsigned i, uint64_t word)
{
    sums[page] += word - MEMORY[page][i];
    MEMORY[page][i] = word;
}

static void complain(unsigned page)
{
    bad++;
    put_figure("BAD page ", page);
    put_line();
}

/* Its first word is known; the place of the second changes from visit to visit. */
static void visit(unsigned page)
{
    uint64_t generation = generations[page] + 1;

    checked++;
    if (MEMORY[page][0] != generations[page]) {
        complain(page);
    }
    generations[page] = generation;
    write_word(page, 0, generation);
    write_word(page, 1 + (unsigned)(generation % (PAGE_WORDS - 1)), mix(generation));
    changed++;
}

static void verify(void)
{
    for (unsigned page = 0; page < PAGES; page++) {
        uint64_t sum = 0;

        for (unsigned i = 0; i < PAGE_WORDS; i++) {
            sum += MEMORY[page][i];
        }
        if (sum != sums[page]) {
            complain(page);
        }
    }
    put_figure("verified pages=", PAGES);
    put_figure(" bad=", bad);
    put_line();
}

static void beat(void)
{
    uint64_t at = now();

    if (at - last_beat > longest_gap) {
        longest_gap = at - last_beat;
    }
    last_beat = at;
    put_figure("beat ", ++beats);
    put_figure(" t=", (at - begun) / ticks_per_ms);
    put_figure(" changed=", changed);
    put_figure(" checked=", checked);
    put_figure(" bad=", bad);
    put_figure(" gap=", longest_gap / ticks_per_ms);
    put_line();
}

static bool is_command(const char *name)
{
    unsigned i = 0;

    while (name[i] && i < command_bytes && name[i] == command[i]) {
        i++;
    }
    return !name[i] && i == command_bytes;
}

static void listen(void)
{
    while (in8(LOG_PORT + 5) & 1) {
        char byte = (char)in8(LOG_PORT);

        if (byte != '\n') {
            if (command_bytes < sizeof(command)) {
                command[command_bytes++] = byte;
            }
            continue;
        }
        if (is_command("verify")) {
            verify();
        } else if (is_command("reset")) {
            longest_gap = 0;
        }
        command_bytes = 0;
    }
}

void bare_main(void);
void bare_main(void)
{
    unsigned page = 0;

    set_up_uart(LOG_PORT, false);
    set_up_uart(ECHO_PORT, true);
    set_up_interrupts();
    for (unsigned i = 0; i < PAGES; i++) {
        fill(i);
    }
    ticks_per_ms = measure_ticks_per_ms();
    put_figure("ready pages=", PAGES);
    put_line();
    begun = last_beat = now();
    for (;;) {
        for (unsigned i = 0; i < 8; i++) {
            visit(page);
            page = page + 1 < PAGES ? page + 1 : 0;
        }
        if (now() - last_beat >= BEAT_MS * ticks_per_ms) {
            beat();
            listen();
        }
    }
}
