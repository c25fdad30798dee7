"""The packages of the extra ``local-sparkpost``: without them an error names the extra, not a module of theirs."""

from importlib import import_module

for _name in ("aiosmtpd", "cryptography", "requests"):
    try:
        import_module(_name)
    except ModuleNotFoundError as _error:
        raise ModuleNotFoundError(
            f'The local SparkPost needs {_name}: pip install "congressy-mailer[local-sparkpost]".', name=_name
        ) from _error
