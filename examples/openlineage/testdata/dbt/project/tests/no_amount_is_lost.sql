-- The migrated sum of each currency is at most what the old CRM had.
select new.currency
from (select currency, sum(amount) as amount from {{ ref('customer_orders') }} group by currency) as new
join (select currency, sum(amount) as amount from {{ source('legacy', 'orders') }} group by currency) as old using (currency)
where new.amount > old.amount
