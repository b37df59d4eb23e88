package health

import (
	"strconv"
	"time"
)

// Defaults of a check.
const (
	defaultInterval        = 10 * time.Second
	defaultTimeout         = 3 * time.Second
	defaultStartInterval   = time.Second
	defaultFailingInterval = 2 * time.Second
	defaultFall            = 3
	defaultRise            = 2
)

// parseTimes reads when a check is run, and how many answers in a row count.
func (c *Check) parseTimes() error {
	d := &c.Definition
	switch d.Type {
	case Docker:
		c.Fall, c.Rise = 1, 1 // the engine has counted
		return nil
	case TTL:
		c.Fall, c.Rise = 1, 1
		var err error
		if d.TTL == "" {
			return wrong("ttl", "write how long a heartbeat is good for, as 30s", "it is missing")
		}
		c.TTL, err = parseDuration("ttl", d.TTL, 0, MinTTL, MaxTTL)
		return err
	}
	if err := c.parseIntervals(d); err != nil {
		return err
	}
	var err error
	if c.Fall, err = parseCount("fall", d.Fall, defaultFall); err != nil {
		return err
	}
	c.Rise, err = parseCount("rise", d.Rise, defaultRise)
	return err
}

func (c *Check) parseIntervals(d *Definition) (err error) {
	if c.Interval, err = parseDuration("interval", d.Interval, defaultInterval, MinInterval, MaxInterval); err != nil {
		return err
	}
	c.Timeout, err = parseDuration("timeout", d.Timeout, min(defaultTimeout, c.Interval), MinTimeout, c.Interval)
	if err != nil {
		return err
	}
	if c.StartPeriod, err = parseDuration("start-period", d.StartPeriod, 0, 0, MaxStart); err != nil {
		return err
	}
	c.StartInterval, err = parseDuration("start-interval", d.StartInterval, min(defaultStartInterval, c.Interval),
		MinInterval, MaxInterval)
	if err != nil {
		return err
	}
	c.FailingInterval, err = parseDuration("failing-interval", d.FailingInterval, min(defaultFailingInterval, c.Interval),
		MinInterval, MaxInterval)
	return err
}

// parseDuration reads a duration within bounds; an empty one is the default.
func parseDuration(field, s string, def, least, most time.Duration) (time.Duration, error) {
	if s == "" {
		return def, nil
	}
	if len(s) > 40 {
		return 0, wrong(field, "write a duration as 300ms, 10s or 1m30s", "it has %d bytes", len(s))
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		if _, err := strconv.Atoi(s); err == nil {
			return 0, wrong(field, "write the unit as well: "+s+"s", "%q has no unit", s)
		}
		return 0, wrong(field, "write a duration as 300ms, 10s or 1m30s", "%q is no duration", s)
	}
	if v < least || v > most {
		fix := "use " + least.String() + " to " + most.String()
		if field == "timeout" {
			fix += ": a run may not last longer than the interval"
		}
		return 0, wrong(field, fix, "%s is out of bounds", v)
	}
	return v, nil
}

// parseCount reads a number of answers in a row; 0 is the default.
func parseCount(field string, n, def int) (int, error) {
	if n == 0 {
		return def, nil
	}
	if n < 0 || n > MaxCount {
		return 0, wrong(field, "use 1 to "+strconv.Itoa(MaxCount), "%d is out of bounds", n)
	}
	return n, nil
}
