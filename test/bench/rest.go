package main

func idle(o options)  {}
func scale(o options) {}
