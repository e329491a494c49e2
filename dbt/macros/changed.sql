{# The loads that completed and whose rows message_facts doesn't have yet. #}
{% macro esms_new_loads() %}
  SELECT load_id FROM {{ ref('stg_esms__loads') }}
  WHERE status = 0
  {%- if is_incremental() %} AND load_id NOT IN (SELECT DISTINCT load_id FROM {{ this }}){% endif %}
{% endmacro %}

{# A RefId's row bears the load that last wrote it: what changed bears a new one. #}
{% macro esms_changed_ref_ids() %}
  {%- set ledger = ref('stg_esms__ref_ids') -%}
  {%- if is_incremental() -%}
    (SELECT * FROM {{ ledger }} WHERE load_id IN ({{ esms.esms_new_loads() }}))
  {%- else -%}
    {{ ledger }}
  {%- endif -%}
{% endmacro %}

{# Their callbacks may bear an older load: a later answer needn't have brought rows. #}
{% macro esms_changed_callbacks() %}
  {%- set callbacks = ref('stg_esms__callbacks') -%}
  {%- if is_incremental() -%}
    (
      SELECT came.* FROM {{ callbacks }} AS came
      INNER JOIN (
        SELECT oa_id AS changed_oa_id, ref_id AS changed_ref_id
        FROM {{ ref('stg_esms__ref_ids') }}
        WHERE load_id IN ({{ esms.esms_new_loads() }})
      ) AS changed
        ON changed.changed_oa_id = came.oa_id AND changed.changed_ref_id = came.ref_id
    )
  {%- else -%}
    {{ callbacks }}
  {%- endif -%}
{% endmacro %}

{# Whoever was taken out of the ledger leaves the model, too. Counts tell whether any was. #}
{% macro esms_remove_gone() %}
  {%- if execute and is_incremental() -%}
    {%- set there -%}
      SELECT oa_id, ref_id FROM {{ ref('stg_esms__ref_ids') }}
      WHERE load_id IN (SELECT load_id FROM {{ ref('stg_esms__loads') }} WHERE status = 0)
    {%- endset -%}
    {%- set counted = run_query(
      'SELECT (SELECT count(*) FROM ' ~ this ~ ') - (SELECT count(*) FROM (' ~ there ~ ') AS there)'
    ) -%}
    {%- if counted.columns[0].values()[0] != 0 -%}
      DELETE FROM {{ this }} AS model
      WHERE NOT EXISTS (
        SELECT 1 FROM ({{ there }}) AS there
        WHERE there.oa_id = model.oa_id AND there.ref_id = model.ref_id
      )
    {%- endif -%}
  {%- endif -%}
{% endmacro %}
