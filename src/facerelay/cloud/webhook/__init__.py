"""A word to another program for each new face: signed, kept on disk until it is taken."""

from facerelay.cloud.webhook.sender import Webhook, WebhookError, reach, sign

__all__ = ["Webhook", "WebhookError", "reach", "sign"]
