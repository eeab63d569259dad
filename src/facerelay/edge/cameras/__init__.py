"""Where frames come from: webcams, streams, files, pictures by MQTT, the built-in scene."""
