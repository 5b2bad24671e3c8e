/*
 * A plugin of TCG that counts the instructions of each translation block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * out=FILE: written when QEMU ends, a line for each block that was executed,
 * "ADDRESS COUNT"; COUNT is that of its instructions.  One vCPU only.  With
 * -icount, an iteration of a "rep" instruction is a block.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

typedef struct Block {
    uint64_t address;
    uint64_t length;
    uint64_t executed;
} Block;

static GHashTable *blocks;
static char *path;

/* Blocks that are translated again are the same ones. */
static Block *block_at(uint64_t address, uint64_t length)
{
    const Block key = { .address = address, .length = length };
    char *name = g_strdup_printf("%" PRIx64 " %" PRIx64, key.address,
                                 key.length);
    Block *block = g_hash_table_lookup(blocks, name);

    if (block) {
        g_free(name);
        return block;
    }
    block = g_memdup2(&key, sizeof(key));
    g_hash_table_insert(blocks, name, block);
    return block;
}

static void executed(unsigned int vcpu, void *opaque)
{
    Block *block = opaque;

    block->executed++;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    Block *block = block_at(qemu_plugin_tb_vaddr(tb),
                            qemu_plugin_tb_n_insns(tb));

    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS,
                                         block);
}

static void ended(qemu_plugin_id_t id, void *opaque)
{
    FILE *file = fopen(path, "w");
    GHashTableIter iter;
    gpointer value;

    if (!file) {
        perror(path);
        exit(1);
    }
    g_hash_table_iter_init(&iter, blocks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Block *block = value;

        if (block->executed) {
            fprintf(file, "%" PRIx64 " %" PRIu64 "\n", block->address,
                    block->length * block->executed);
        }
    }
    fclose(file);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info, int argc,
                                           char **argv)
{
    if (argc != 1 || !g_str_has_prefix(argv[0], "out=")) {
        fprintf(stderr, "the plugin needs out=FILE, and nothing else\n");
        return -1;
    }
    path = g_strdup(argv[0] + strlen("out="));
    blocks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
