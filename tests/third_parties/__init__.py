"""Other people's apps over the queue: run by ``make third-parties`` in an environment that has them installed."""
