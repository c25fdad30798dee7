"""The admin's pages in headless Chromium, as support and operators use them: ``make browser``."""
