-- Orders of a duplicate go to the customer that is kept; an order of nobody keeps the number it has.
select
    orders.id as order_id,
    coalesce(kept.customer_id, orders.customer_id) as customer_id,
    orders.ordered_on,
    orders.amount,
    orders.currency
from {{ source('legacy', 'orders') }} as orders
left join {{ source('legacy', 'customers') }} as customers on customers.id = orders.customer_id
left join {{ ref('stg_customers') }} as kept on kept.email = lower(trim(customers.email))
