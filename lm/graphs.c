// SPDX-License-Identifier: Apache-2.0
#include "lm/graphs.h"

#include <string.h>

static void drop(struct sl_graphs *g, struct sl_graph_entry *entry)
{
    if (entry->graph) {
        g->ops->graph_destroy(entry->graph);
    }
    *entry = (struct sl_graph_entry){0};
}

// The entry of such a step; makes room for a new one where there is none.
static struct sl_graph_entry *find(struct sl_graphs *g, int64_t rows, int64_t width)
{
    struct sl_graph_entry *oldest = g->entries;
    for (int i = 0; i < g->count; i++) {
        struct sl_graph_entry *entry = &g->entries[i];
        if (entry->rows == rows && entry->width == width) {
            return entry;
        }
        oldest = entry->used < oldest->used ? entry : oldest;
    }
    struct sl_graph_entry *made = g->count < SL_GRAPHS_MOST ? &g->entries[g->count++] : oldest;
    drop(g, made);
    made->rows = rows;
    made->width = width;
    return made;
}

void sl_graphs_clear(struct sl_graphs *g)
{
    for (int i = 0; i < g->count; i++) {
        drop(g, &g->entries[i]);
    }
    g->count = g->unsupported = 0;
}

void sl_graphs_run(struct sl_graphs *g, struct sl_stream *stream, int64_t rows, int64_t width,
                   void (*enqueue)(void *context), void *context)
{
    if (g->unsupported) {
        enqueue(context);
        return;
    }
    struct sl_graph_entry *entry = find(g, rows, width);
    int is_new = entry->used == 0;
    entry->used = ++g->clock;
    if (!entry->graph && !is_new && entry->failed < SL_GRAPHS_TRIES) {
        if (g->ops->graph_begin(stream)) {
            enqueue(context);
            (void)g->ops->graph_end(stream, &entry->graph);
            entry->failed += entry->graph == NULL;
        } else {
            g->unsupported = 1;
        }
    }
    if (entry->graph) {
        g->ops->graph_launch(entry->graph, stream);
    } else {
        enqueue(context);
    }
}
