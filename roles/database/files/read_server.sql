-- Everything that decisions about a PostgreSQL server are made from, in one answer. Changes nothing, tells no secret:
-- of a password's verifier only the checksum.
with places as (
  select
    current_setting('config_file') as config_file,
    current_setting('hba_file') as hba_file,
    coalesce(
      nullif(%(unit)s, ''),
      'postgresql@' || array_to_string(regexp_match(
        current_setting('config_file'), '^/etc/postgresql/([0-9.]+/[^/]+)/postgresql[.]conf$'), ''),
      'postgresql') as unit_path
), units as (
  select *,
    replace(unit_path, '/', '-') as unit,
    regexp_replace(config_file, '[^/]+$',
      case when config_file like '/etc/postgresql/%%' then 'conf.d/pygrid.conf' else 'pygrid.conf' end) as settings_file
  from places
), ours as (
  -- pg_authid, not pg_roles: the latter hides passwords
  select role.*, shobj_description(role.oid, 'pg_authid') as note
  from pg_authid as role
  where shobj_description(role.oid, 'pg_authid') like 'openmined.pygrid: %%'
     or role.rolname = any (%(roles)s::text[])
)
select json_build_object(
  'version', current_setting('server_version_num')::int,
  'standby', pg_is_in_recovery(),
  'unit', unit,
  'drop_in', case when config_file like '/etc/postgresql/%%' then coalesce(
    pg_read_file('/etc/systemd/system/' || unit || '.service.d/pygrid.conf', 0, 10000, true), '') end,
  'config_file', config_file,
  'settings_file', settings_file,
  'settings_text', coalesce(pg_read_file(settings_file, 0, 10000, true), ''),
  -- null where a folder of files is included anyway
  'settings_included', case when config_file not like '/etc/postgresql/%%' then
    pg_read_file(config_file) like '%%pygrid.conf%%' end,
  'hba_file', hba_file,
  'hba', pg_read_file(hba_file),
  'hba_errors', (
    select coalesce(json_agg(json_build_object('line', line_number, 'error', error)), '[]'::json)
    from pg_hba_file_rules where error is not null),
  'certificate', (pg_stat_file(%(certificate)s, true)).size is not null
    and (pg_stat_file(%(key)s, true)).size is not null,
  'newer_files', (
    -- what a run wrote that was killed before it could reload the server, or what role certificates renewed
    select coalesce(json_agg(file), '[]'::json)
    from unnest(array[hba_file, settings_file, %(certificate)s::text, %(key)s::text]) as file
    where (pg_stat_file(file, true)).change > pg_conf_load_time()),
  'settings', (
    select json_object_agg(name, json_build_object(
      'running', setting,
      'base', coalesce((
        select file.setting from pg_file_settings as file
        where file.name = setting.name and file.sourcefile <> settings_file
        order by file.seqno desc limit 1), setting.boot_val),
      'overridden_by', (
        -- what stands further down, or was set by ALTER SYSTEM, wins over our file
        select file.sourcefile from pg_file_settings as file
        where file.name = setting.name and file.sourcefile <> settings_file and file.seqno > coalesce((
          select max(own.seqno) from pg_file_settings as own
          where own.name = file.name and own.sourcefile = settings_file), case
          when file.sourcefile like '%%/postgresql.auto.conf' then 0 else file.seqno end)
        order by file.seqno desc limit 1)))
    from pg_settings as setting
    where name in ('listen_addresses', 'port', 'max_connections', 'superuser_reserved_connections', 'ssl',
      'ssl_cert_file', 'ssl_key_file', 'ssl_min_protocol_version')),
  'roles', (
    select coalesce(json_object_agg(rolname, json_build_object(
      'note', note,
      'sane', rolcanlogin and rolinherit and not (
        rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls)
        and coalesce(rolvaliduntil, 'infinity') = 'infinity',
      'limit', rolconnlimit,
      'verifier_sha256', encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex'),
      'member_of', (
        select coalesce(json_agg(parent.rolname order by parent.rolname), '[]'::json)
        from pg_auth_members as member join pg_authid as parent on parent.oid = member.roleid
        where member.member = ours.oid),
      'settings', (
        select coalesce(json_agg(entry order by entry), '[]'::json)
        from pg_db_role_setting as own, unnest(own.setconfig) as entry
        where own.setrole = ours.oid and own.setdatabase = 0),
      'holds', (
        select coalesce(json_agg(distinct base.datname), '[]'::json)
        from pg_shdepend as held join pg_database as base on base.oid = held.dbid
        where held.refclassid = 'pg_authid'::regclass and held.refobjid = ours.oid))), '{}'::json)
    from ours),
  'databases', (
    select json_object_agg(datname, json_build_object(
      'owner', pg_get_userbyid(datdba),
      'public', has_database_privilege('public', base.oid, 'CONNECT')
        or has_database_privilege('public', base.oid, 'TEMPORARY')))
    from pg_database as base where not datistemplate)
) as server
from units
