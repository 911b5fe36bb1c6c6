// SPDX-License-Identifier: Apache-2.0
// Figures for Prometheus over HTTP: a thread that answers every request with the text of the moment, one at a time.
#ifndef SL_SRC_METRICS_H
#define SL_SRC_METRICS_H

#include "src/watch.h"

struct sl_metrics;

// address: "127.0.0.1:9100". SL_ERR_USAGE when it is none, SL_ERR_IO when it cannot be listened on. The watch and the
// sinks must outlive the metrics.
int sl_metrics_start(const char *address, struct sl_watch *watch, struct sl_sinks *sinks, struct sl_metrics **out,
                     struct sl_error *error);
void sl_metrics_stop(struct sl_metrics *metrics); // accepts NULL

#endif
