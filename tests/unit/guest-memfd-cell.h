/*
 * A conversion of guest memory in which chosen calls fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One request on two blocks of real memory, of 8 pages each, with three
 * listeners.  The expected result follows from what failed, without the
 * engine.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_CELL_H
#define TESTS_UNIT_GUEST_MEMFD_CELL_H

#include "guest-memfd-rig.h"

#define CELL_BLOCK_PAGES    8
#define CELL_PAGES          (2 * CELL_BLOCK_PAGES)
#define CELL_LISTENERS      3

typedef struct CellAsk {
    GuestMemfdDirection direction;
    GuestMemfdIntent intent;
    GuestMemfdContentPolicy policy;
} CellAsk;

/* @right: the page that needs no conversion. */
typedef struct CellShape {
    unsigned first, pages;
    unsigned right;
} CellShape;

/* The provider's calls from @call on fail, @count times. */
typedef struct CellFault {
    unsigned call, count;
    int error;
    unsigned progress;
} CellFault;

typedef struct Cell {
    CellAsk ask;
    CellShape shape;
    GuestMemfdOffer offer;
    CellFault faults[2];
    unsigned listener;          /* CELL_LISTENERS: none refuses */
    unsigned agrees;            /* to so many, then refuses */
    int refusal;
    bool no_retry;
} Cell;

/* The cell that runs, and its results. */
typedef struct CellState {
    Rig *rig;
    Cell cell;
    GuestMemfdDecision decision;
    unsigned calls;
    uint32_t touched;           /* pages whose state was ever changed */
    uint32_t broken_pages;
    int fatal;                  /* the error that no other try can mend */
    bool refused;
    struct {
        bool failed;
        unsigned tries;
        uint64_t offset, size;
    } way_back;
} CellState;

extern CellState the;

/* Of all cells. */
typedef struct CellCounts {
    unsigned long cells;
    unsigned long faults;
    unsigned long refusals;
    unsigned long broken;       /* runs without a way back */
} CellCounts;

extern CellCounts cell_counts;

void cell_start(void);
void cell_end(void);
/* Returns how often the provider was called. */
unsigned cell_run(const Cell *cell);
/* How often a listener was asked, in the last cell. */
unsigned cell_asked(unsigned listener);

/* --- for the provider --------------------------------------------------- */

#define TYPE_CELL_PROVIDER "guest-memfd-provider-cell"

/* From now on there is no memory, for that reason; 0: there is. */
void cell_set_alloc_error(int error);

bool cell_worth_another_try(int error);
/* Bytes are lost on the way back from a failure. */
bool cell_is_lossy(void);
/* Numbers of pages go on in the second block. */
unsigned cell_page_of(const GuestMemfdBlock *block, uint64_t offset);
bool cell_changes(unsigned page);
bool cell_is_shared(unsigned page);
uint64_t *cell_words(unsigned page);
/* At any time: no byte can be read before it may be. */
void cell_check_visible(void);
void cell_describe(void);

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            cell_describe(); \
            g_assert_true(condition); \
        } \
    } while (0)

#endif /* TESTS_UNIT_GUEST_MEMFD_CELL_H */
