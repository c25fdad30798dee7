"""What SparkPost tells of mails that were sent: its webhook, its batches, and what became of each recipient."""
