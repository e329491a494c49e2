{% test esms_unique(model, columns) %}
SELECT {{ columns | join(', ') }}, count(*) AS times
FROM {{ model }}
GROUP BY {{ columns | join(', ') }}
HAVING count(*) > 1
{% endtest %}
