
import django.db.models.deletion
from django.db import migrations, models

import congressy_mailer.models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.UUIDField(default=congressy_mailer.models.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('created_at', models.DateTimeField(auto_now_add=True, verbose_name='created at')),
            ],
            options={
                'verbose_name': 'batch',
                'verbose_name_plural': 'batches',
            },
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.UUIDField(default=congressy_mailer.models.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('state', models.CharField(choices=[('scheduled', 'scheduled'), ('queued', 'queued'), ('sending', 'sending'), ('deferred', 'deferred'), ('sent', 'sent'), ('failed', 'failed'), ('cancelled', 'cancelled'), ('expired', 'expired'), ('suppressed', 'suppressed'), ('held', 'held')], default='queued', max_length=10, verbose_name='state')),
                ('due_at', models.DateTimeField(blank=True, null=True, verbose_name='due at')),
                ('priority', models.PositiveSmallIntegerField(choices=[(1, 'high'), (5, 'normal'), (9, 'low')], default=5, verbose_name='priority')),
                ('token', models.CharField(blank=True, default='', max_length=100, verbose_name='token')),
                ('attempts', models.PositiveIntegerField(default=0, verbose_name='attempts')),
                ('crashes', models.PositiveSmallIntegerField(default=0, verbose_name='crashes')),
                ('remaining', models.JSONField(blank=True, null=True, verbose_name='remaining recipients')),
                ('reply', models.TextField(blank=True, default='', verbose_name='last reply')),
                ('reason', models.TextField(blank=True, default='', verbose_name='reason')),
                ('send_at', models.DateTimeField(blank=True, null=True, verbose_name='send at')),
                ('expires_at', models.DateTimeField(blank=True, null=True, verbose_name='expires at')),
                ('created_at', models.DateTimeField(verbose_name='created at')),
                ('queued_at', models.DateTimeField(blank=True, null=True, verbose_name='queued at')),
                ('sent_at', models.DateTimeField(blank=True, null=True, verbose_name='sent at')),
                ('finished_at', models.DateTimeField(blank=True, null=True, verbose_name='finished at')),
                ('message_id', models.CharField(max_length=320, verbose_name='Message-ID')),
                ('from_email', models.CharField(max_length=1000, verbose_name='from')),
                ('to', models.JSONField(default=list, verbose_name='to')),
                ('cc', models.JSONField(blank=True, default=list, verbose_name='cc')),
                ('bcc', models.JSONField(blank=True, default=list, verbose_name='bcc')),
                ('reply_to', models.JSONField(blank=True, default=list, verbose_name='reply to')),
                ('headers', models.JSONField(blank=True, default=dict, verbose_name='headers')),
                ('template', models.CharField(blank=True, default='', max_length=255, verbose_name='template')),
                ('context', models.JSONField(blank=True, null=True, verbose_name='context')),
                ('language', models.CharField(blank=True, default='', max_length=20, verbose_name='language')),
                ('timezone', models.CharField(blank=True, default='', max_length=64, verbose_name='time zone')),
                ('subject', models.TextField(blank=True, default='', verbose_name='subject')),
                ('text', models.TextField(blank=True, default='', verbose_name='text')),
                ('html', models.TextField(blank=True, default='', verbose_name='HTML')),
                ('mime', models.BinaryField(blank=True, null=True, verbose_name='MIME message')),
                ('transactional', models.BooleanField(default=True, verbose_name='transactional')),
                ('sensitive', models.BooleanField(default=False, verbose_name='sensitive')),
                ('idempotency_key', models.CharField(blank=True, max_length=200, null=True, unique=True, verbose_name='idempotency key')),
                ('using', models.CharField(blank=True, default='', max_length=100, verbose_name='using')),
                ('batch', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='messages', to='congressy_mailer.batch', verbose_name='batch')),
            ],
            options={
                'verbose_name': 'message',
                'verbose_name_plural': 'messages',
            },
        ),
        migrations.CreateModel(
            name='Event',
            fields=[
                ('id', models.UUIDField(default=congressy_mailer.models.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('type', models.CharField(choices=[('accepted', 'accepted'), ('deferred', 'deferred'), ('rejected', 'rejected'), ('failed', 'failed'), ('crashed', 'crashed'), ('retried', 'retried')], max_length=20, verbose_name='type')),
                ('at', models.DateTimeField(verbose_name='at')),
                ('recipient', models.CharField(blank=True, default='', max_length=400, verbose_name='recipient')),
                ('detail', models.TextField(blank=True, default='', verbose_name='detail')),
                ('message', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='congressy_mailer.message', verbose_name='message')),
            ],
            options={
                'verbose_name': 'event',
                'verbose_name_plural': 'events',
                'ordering': ['at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='Attachment',
            fields=[
                ('id', models.UUIDField(default=congressy_mailer.models.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('filename', models.CharField(blank=True, default='', max_length=255, verbose_name='file name')),
                ('mimetype', models.CharField(max_length=255, verbose_name='media type')),
                ('content_id', models.CharField(blank=True, default='', max_length=255, verbose_name='content id')),
                ('size', models.PositiveBigIntegerField(verbose_name='size')),
                ('sha256', models.CharField(max_length=64, verbose_name='SHA-256')),
                ('file', models.FileField(max_length=255, storage=congressy_mailer.models.attachment_storage, upload_to=congressy_mailer.models.attachment_path, verbose_name='file')),
                ('message', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='attachments', to='congressy_mailer.message', verbose_name='message')),
            ],
            options={
                'verbose_name': 'attachment',
                'verbose_name_plural': 'attachments',
                'ordering': ['id'],
            },
        ),
        migrations.AddIndex(
            model_name='message',
            index=models.Index(fields=['due_at'], name='mailer_message_due'),
        ),
        migrations.AddIndex(
            model_name='message',
            index=models.Index(fields=['state', 'created_at'], name='mailer_message_state'),
        ),
        migrations.AddConstraint(
            model_name='message',
            constraint=models.CheckConstraint(condition=models.Q(('mime__isnull', True), models.Q(('context__isnull', True), ('html', ''), ('subject', ''), ('template', ''), ('text', '')), _connector='OR'), name='mailer_message_mime_alone'),
        ),
        migrations.AddConstraint(
            model_name='message',
            constraint=models.CheckConstraint(condition=models.Q(('template', ''), models.Q(('html', ''), ('text', '')), _connector='OR'), name='mailer_message_template_or_ready'),
        ),
    ]
