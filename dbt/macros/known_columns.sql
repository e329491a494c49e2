-- made by tools/generate.py; change esms_source/tables.py or views/messages.sql instead
{% macro esms_ledger_columns() %}
  {{ return(['answered_by_load', 'attempts', 'chosen', 'failed_since', 'final_at', 'first_answered_at', 'first_polled_at', 'last_error', 'last_polled_at', 'load_id', 'next_poll_at', 'oa_id', 'ref_id', 'sent_at', 'state']) }}
{% endmacro %}
{% macro esms_message_columns() %}
  {{ return(['attempts', 'callback_rows', 'delivery', 'error_category', 'error_code', 'error_meaning_en', 'error_meaning_vi', 'error_message', 'error_retryable', 'error_who_can_fix', 'final_at', 'first_polled_at', 'last_error', 'last_polled_at', 'load_id', 'message_type_en', 'message_type_vi', 'next_poll_at', 'oa_id', 'oa_name', 'outcome', 'partner_ids', 'phone_number', 'ref_id', 'request_id', 'send_failed', 'send_status', 'send_status_en', 'send_status_vi', 'send_success', 'sent_at', 'sent_day', 'state', 'telco_en', 'telco_id', 'telco_vi', 'template_name', 'total_price', 'total_receiver', 'total_sent', 'type_id', 'zns_temp_id']) }}
{% endmacro %}
