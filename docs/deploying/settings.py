# project/settings.py, at its end
import os

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DATABASE_HOST"],
        "PORT": os.environ.get("DATABASE_PORT", "5432"),
        "NAME": os.environ.get("DATABASE_NAME", "project"),
        "USER": os.environ.get("DATABASE_USER", "project"),
        "PASSWORD": os.environ["DATABASE_PASSWORD"],
    }
}
# `collectstatic` fills this folder, and the web server's processes answer from it.
STATIC_ROOT = BASE_DIR / "staticfiles"
MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
CONGRESSY_MAILER = {
    "JOURNAL_DIRECTORY": os.environ.get("JOURNAL_DIRECTORY", "auto"),
}
