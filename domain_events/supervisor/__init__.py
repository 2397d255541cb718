"""Processes: a master that forks one child for each process of a receiver. Knows no RabbitMQ."""
