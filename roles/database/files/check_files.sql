-- A reload ignores wrong files, but the next start fails with them: better to know now, while the server runs.
select current_setting('hba_file') || ' line ' || line_number || ': ' || error as wrong
from pg_hba_file_rules
where error is not null
  -- lines for TLS make no sense to a server that is about to learn it
  and not (error like '%SSL%' and current_setting('ssl') = 'off' and exists (
    select from pg_file_settings where name = 'ssl' and setting = 'on'))
union all
select file.sourcefile || ' line ' || file.sourceline || ': ' || coalesce(file.name || ': ', '') || file.error
from pg_file_settings as file left join pg_settings as known on known.name = file.name
where file.error is not null and file.sourcefile is not null
  -- what only a restart can change is an error in the eyes of a reload
  and known.context is distinct from 'postmaster'
