-- One row per person: the oldest of those who share an e-mail address. Test customers are left behind.
select
    min(id) as customer_id,
    lower(trim(email)) as email,
    upper(min(country)) as country
from {{ source('legacy', 'customers') }}
where email not like '%@qa.test'
group by lower(trim(email))
