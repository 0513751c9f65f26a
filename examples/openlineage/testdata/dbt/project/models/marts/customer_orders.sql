select
    customers.customer_id,
    customers.country,
    orders.currency,
    count(orders.order_id) as orders,
    sum(orders.amount) as amount
from {{ ref('stg_customers') }} as customers
left join {{ ref('stg_orders') }} as orders on orders.customer_id = customers.customer_id
group by customers.customer_id, customers.country, orders.currency
