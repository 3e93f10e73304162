"""The methods: fixed patterns, learned and calibrated degrees, and controls."""
