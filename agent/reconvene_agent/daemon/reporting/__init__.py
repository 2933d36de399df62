"""What is told: to the fleet, on the local socket, to Home Assistant and to Prometheus; and who tells it."""
