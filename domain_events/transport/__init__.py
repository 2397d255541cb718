"""RabbitMQ: the only room that imports pika."""
