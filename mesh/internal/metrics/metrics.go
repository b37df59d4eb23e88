// Package metrics turns what the parts of a node count into Prometheus metrics.
//
// It counts nothing itself but the propagation of beacons: everything is read when
// somebody asks, from the parts' own counters, which the caller passes as values. A
// metric is one line of the file of its part, and one of docs/OPERATIONS.md.
package metrics

import (
	"context"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// collectTimeout is how long one collection may wait for the parts.
const collectTimeout = 2 * time.Second

// Registry has the metrics of one node. Its methods are safe for concurrent use.
type Registry struct {
	registry    *prometheus.Registry
	collect     func(ctx context.Context, e Emitter)
	propagation prometheus.Histogram
}

// New returns a Registry. collect sends the metrics of the parts; it is called each time
// that somebody asks for them, by several goroutines.
func New(collect func(ctx context.Context, e Emitter)) *Registry {
	r := &Registry{registry: prometheus.NewRegistry(), collect: collect}
	r.propagation = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meshd_propagation_seconds", Help: "Age of beacons of other nodes on arrival, by both nodes' wall clocks.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
	})
	r.registry.MustRegister(collector{r}, r.propagation, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Propagation counts the age of a beacon that arrived; one from the future has none.
func (r *Registry) Propagation(age time.Duration) { r.propagation.Observe(max(age, 0).Seconds()) }

// Write writes all metrics in Prometheus' text format.
func (r *Registry) Write(w io.Writer) error {
	families, err := r.registry.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	return nil
}

// collector lets Prometheus' registry ask for the metrics of the parts.
type collector struct{ r *Registry }

// Describe implements prometheus.Collector: the set of metrics is open.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	c.r.collect(ctx, Emitter{ch})
}

// Emitter sends metrics during one collection. labels are names and values in turn.
type Emitter struct{ ch chan<- prometheus.Metric }

// Gauge sends a value that goes up and down.
func (e Emitter) Gauge(name, help string, v float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, v, labels)
}

// Flag sends a gauge that is 1 or 0.
func (e Emitter) Flag(name, help string, v bool, labels ...string) {
	e.Gauge(name, help, boolean(v), labels...)
}

// Counter sends a running total.
func (e Emitter) Counter(name, help string, v uint64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(v), labels)
}

// Seconds sends a running total of time.
func (e Emitter) Seconds(name, help string, v time.Duration, labels ...string) {
	e.send(prometheus.CounterValue, name, help, v.Seconds(), labels)
}

// Histogram sends counts of durations, bounds in seconds; buckets has one more count than
// there are bounds, of what is above all of them. sum is that of all durations.
func (e Emitter) Histogram(name, help string, sum time.Duration, bounds []float64, buckets []uint64,
	labels ...string,
) {
	keys, values := split(labels)
	below, count := map[float64]uint64{}, uint64(0)
	for i, bound := range bounds {
		count += buckets[i]
		below[bound] = count
	}
	count += buckets[len(bounds)]
	e.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, keys, nil), count, sum.Seconds(), below,
		values...)
}

func (e Emitter) send(t prometheus.ValueType, name, help string, v float64, labels []string) {
	keys, values := split(labels)
	e.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, keys, nil), t, v, values...)
}

// split returns the names and the values of labels.
func split(labels []string) (keys, values []string) {
	for i := 0; i+1 < len(labels); i += 2 {
		keys, values = append(keys, labels[i]), append(values, labels[i+1])
	}
	return keys, values
}

// boolean is 1 or 0.
func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
