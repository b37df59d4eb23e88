package main

func burst(o options) {}
func churn(o options) {}
func heal(o options)  {}
func idle(o options)  {}
func join(o options)  {}
func cold(o options)  {}
func scale(o options) {}
