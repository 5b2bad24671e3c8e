/*
 * The command line: what to ask, how, and what to expect
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   via=testdev|hypercall|none   default: what is there, in this order
 *   cases=full|quick             default: full
 *   cases=malformed              count=N seed=N: nonsense, all refused
 *   cases=race                   seconds=N seed=N: all vCPUs at once
 *   cases=slots                  the same, while memslots are created again
 *   cases=cycle                  rounds=N hold=N: all free memory, and
 *                                hold seconds before the end
 *   cases=large                  count=N rounds=N: N gigabytes above 4 GiB
 *   cases=pin                    a page that a device holds on to
 *   cases=model                  count=N seed=N: random steps, a model
 *   cases=writers                seed=1|2: QEMU and KVM write to it
 *   cases=assigned               count=N seconds=N rounds=1|2|3: devices of
 *                                the host; 2: it cannot unmap parts of
 *                                mappings; 3: it runs out of them
 *   cases=bench                  count=KIB rounds=N pattern=NAME
 *                                only=KIB pause=on|off: what it costs
 *   cases=defects                defect=NAME: one of QEMU 10.2.2's
 *   expect=emulated|content-modes|in-place|two-backings
 *   poison=on|off                on: DEFAULT must not keep the bytes
 *   vcpus=N                      1 to 8
 *   backends=1|2                 1: all memory is one backend
 *   huge=on|off                  on: memory can be in huge pages
 *   probe=N                      device probes every Nth private page
 *   report=all|bad               bad: a line for each failed case only
 *   platform=none|snp|tdx        snp, tdx: launched by it, all memory private
 *   offer=on|off                 off: QEMU offers no content modes
 *   cases=platform               requests by hypercall and by access
 */

#include "guest.h"

#define START_INFO_MAGIC        0x336ec578
#define START_INFO_CMDLINE      24

struct word {
    const char *name;
    unsigned value;
};

struct option {
    const char *name;
    const struct word *words;   /* NULL: a number */
    unsigned *value;
};

struct options options;

static unsigned via, expect, cases, defect, poison, vcpus, backends, probe;
static unsigned report, huge, platform, offer;
static unsigned count, seed, seconds, rounds, hold, pattern, pause, only;

static const struct word via_words[] = {
    { "auto", VIA_AUTO },
    { "none", VIA_NONE },
    { "testdev", VIA_TESTDEV },
    { "hypercall", VIA_HYPERCALL },
    { NULL, 0 },
};

static const struct word expect_words[] = {
    { "emulated", EXPECT_EMULATED },
    { "content-modes", EXPECT_CONTENT_MODES },
    { "in-place", EXPECT_IN_PLACE },
    { "two-backings", EXPECT_TWO_BACKINGS },
    { NULL, 0 },
};

static const struct word cases_words[] = {
    { "quick", CASES_QUICK },
    { "full", CASES_FULL },
    { "malformed", CASES_MALFORMED },
    { "race", CASES_RACE },
    { "slots", CASES_SLOTS },
    { "cycle", CASES_CYCLE },
    { "large", CASES_LARGE },
    { "pin", CASES_PIN },
    { "model", CASES_MODEL },
    { "defects", CASES_DEFECTS },
    { "writers", CASES_WRITERS },
    { "svm", CASES_SVM },
    { "assigned", CASES_ASSIGNED },
    { "bench", CASES_BENCH },
    { "platform", CASES_PLATFORM },
    { NULL, 0 },
};

static const struct word defect_words[] = {
    { "two-regions", DEFECT_TWO_REGIONS },
    { "hole", DEFECT_HOLE },
    { "slot", DEFECT_SLOT },
    { "bad-request", DEFECT_BAD_REQUEST },
    { "notify", DEFECT_NOTIFY },
    { NULL, 0 },
};

static const struct word pattern_words[] = {
    { "uniform", PATTERN_UNIFORM },
    { "alternate", PATTERN_ALTERNATE },
    { "random", PATTERN_RANDOM },
    { NULL, 0 },
};

static const struct word switch_words[] = {
    { "off", false }, { "on", true }, { NULL, 0 },
};

static const struct word report_words[] = {
    { "all", true }, { "bad", false }, { NULL, 0 },
};

static const struct word platform_words[] = {
    { "none", PLATFORM_NONE }, { "snp", PLATFORM_SNP },
    { "tdx", PLATFORM_TDX }, { NULL, 0 },
};

static const struct option option_table[] = {
    { "via", via_words, &via },
    { "expect", expect_words, &expect },
    { "cases", cases_words, &cases },
    { "defect", defect_words, &defect },
    { "poison", switch_words, &poison },
    { "huge", switch_words, &huge },
    { "vcpus", NULL, &vcpus },
    { "backends", NULL, &backends },
    { "probe", NULL, &probe },
    { "report", report_words, &report },
    { "platform", platform_words, &platform },
    { "offer", switch_words, &offer },
    { "count", NULL, &count },
    { "seed", NULL, &seed },
    { "seconds", NULL, &seconds },
    { "rounds", NULL, &rounds },
    { "hold", NULL, &hold },
    { "pattern", pattern_words, &pattern },
    { "pause", switch_words, &pause },
    { "only", NULL, &only },
};

bool string_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static const char *word_name(const struct word *words, unsigned value)
{
    while (words->name && words->value != value) {
        words++;
    }
    return words->name ? words->name : "?";
}

const char *via_name(enum via value)
{
    return word_name(via_words, value);
}

const char *expect_name(enum expect value)
{
    return word_name(expect_words, value);
}

const char *cases_name(enum cases value)
{
    return word_name(cases_words, value);
}

const char *pattern_name(enum pattern value)
{
    return word_name(pattern_words, value);
}

/* True when text starts with word, and a space or the end follows. */
static bool word_matches(const char *text, const char *word)
{
    while (*word && *text == *word) {
        text++;
        word++;
    }
    return !*word && (!*text || *text == ' ');
}

static bool parse_value(const struct option *option, const char *text)
{
    const struct word *word;

    if (!option->words) {
        *option->value = 0;
        while (*text >= '0' && *text <= '9') {
            *option->value = *option->value * 10 + (*text++ - '0');
        }
        return (!*text || *text == ' ') && *option->value;
    }
    for (word = option->words; word->name; word++) {
        if (word_matches(text, word->name)) {
            *option->value = word->value;
            return true;
        }
    }
    return false;
}

/* Not for this program, or malformed: false. */
static bool parse_word(const char *text)
{
    unsigned i, n;

    for (i = 0; i < ARRAY_SIZE(option_table); i++) {
        const char *name = option_table[i].name;

        for (n = 0; name[n] && name[n] == text[n]; n++) {
            continue;
        }
        if (!name[n] && text[n] == '=') {
            return parse_value(&option_table[i], text + n + 1);
        }
    }
    return false;
}

static void parse_line(const char *text)
{
    struct check check = { 0 };

    while (*text) {
        if (*text != ' ' && !parse_word(text)) {
            say("usage bad option: %s", text);
            fail(&check, "option", 0, 0, 0);
            guest_exit(false);
        }
        while (*text && *text != ' ') {
            text++;
        }
        while (*text == ' ') {
            text++;
        }
    }
}

static void set_defaults(void)
{
    cases = CASES_FULL;
    vcpus = 1;
    backends = 2;
    probe = 1;
    report = true;
    offer = true;
    count = 10000;
    seed = 1;
    seconds = 10;
    rounds = 1;
}

void options_parse(uint64_t start_info)
{
    const uint32_t *magic = (const uint32_t *)start_info;
    const uint64_t *cmdline;

    set_defaults();
    cmdline = (const uint64_t *)(start_info + START_INFO_CMDLINE);
    if (*magic == START_INFO_MAGIC && *cmdline) {
        parse_line((const char *)*cmdline);
    }

    options.via = via;
    options.expect = expect;
    options.cases = cases;
    options.defect = defect;
    options.full = cases == CASES_FULL;
    options.poison = poison;
    options.huge = huge;
    options.vcpus = vcpus;
    options.backends = backends;
    options.probe = probe;
    options.report_all = report;
    options.platform = platform;
    options.offer = offer;
    options.count = count;
    options.seed = seed;
    options.seconds = seconds;
    options.rounds = rounds;
    options.hold = hold;
    options.pattern = pattern;
    options.pause = pause;
    options.only = only;
}
