{% macro esms_carried() %}
  {# Columns of the ledger beyond its own, and their names in messages. #}
  {% set carried = {} %}
  {% if execute %}
    {% for column in adapter.get_columns_in_relation(source('esms', 'ref_ids')) %}
      {% set name = column.name %}
      {% set own = name | lower in esms.esms_ledger_columns() %}
      {% if not own and not name.lower().startswith('_dlt_') %}
        {% set taken = name | lower in esms.esms_message_columns() %}
        {% do carried.update({name: 'carried_' ~ name if taken else name}) %}
      {% endif %}
    {% endfor %}
  {% endif %}
  {{ return(carried) }}
{% endmacro %}

{% macro esms_carried_from_ledger() %}
  {%- for name, alias in esms.esms_carried().items() -%}
    , ledger.{{ adapter.quote(name) }} AS {{ adapter.quote(alias) }}
  {%- endfor -%}
{% endmacro %}

{% macro esms_carried_from_facts() %}
  {%- for alias in esms.esms_carried().values() -%}
    , facts.{{ adapter.quote(alias) }}
  {%- endfor -%}
{% endmacro %}
