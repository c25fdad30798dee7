"""The project for a WSGI server, with the static files that Django's development server would serve, too."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.project.settings")

application = StaticFilesHandler(get_wsgi_application())
