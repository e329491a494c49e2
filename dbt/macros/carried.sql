{% macro esms_carried() %}
  {# Columns of messages that the ledger carries, and their SQL. What a column doesn't take
     stands beside it in the ledger, as text: both are one here. #}
  {% set carried = {} %}
  {% if execute %}
    {% set names = adapter.get_columns_in_relation(source('esms', 'ref_ids'))
        | map(attribute='name') | list %}
    {% for name in names %}
      {% set own = name | lower in esms.esms_ledger_columns() %}
      {% set beside = name.endswith('__v_text') and name[:-8] in names %}
      {% if not own and not beside and not name.lower().startswith('_dlt_') %}
        {% set value = 'ledger.' ~ adapter.quote(name) %}
        {% if name ~ '__v_text' in names %}
          {% set value = 'coalesce(cast(' ~ value ~ ' as varchar), ledger.'
              ~ adapter.quote(name ~ '__v_text') ~ ')' %}
        {% endif %}
        {% set taken = name | lower in esms.esms_message_columns() %}
        {% do carried.update({'carried_' ~ name if taken else name: value}) %}
      {% endif %}
    {% endfor %}
  {% endif %}
  {{ return(carried) }}
{% endmacro %}

{% macro esms_carried_from_ledger() %}
  {%- for alias, value in esms.esms_carried().items() -%}
    , {{ value }} AS {{ adapter.quote(alias) }}
  {%- endfor -%}
{% endmacro %}

{% macro esms_carried_from_facts() %}
  {%- for alias in esms.esms_carried() -%}
    , facts.{{ adapter.quote(alias) }}
  {%- endfor -%}
{% endmacro %}
