-- What is known of requests that ended before there were sums; of those that failed, not by whose fault.
INSERT INTO request_sums (span, start, model, upstream, requests, served, client_errors, payment_errors, upstream_errors, node_errors,
    clients_gone, charged_requests, input_tokens, cached_tokens, output_tokens, charged_msat, cost_msat, nano_usd,
    unpriced, first_ms, firsts, took_ms, tooks)
SELECT 'hour', began - began % 3600000, model, upstream, COUNT(*), SUM(served), 0, 0, 0, 0, 0, SUM(paid),
    CAST(SUM(input) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(output) AS BIGINT),
    CAST(SUM(charged) AS BIGINT), CAST(COALESCE(SUM(msat), 0) AS BIGINT), CAST(COALESCE(SUM(nano_usd), 0) AS BIGINT),
    SUM(CASE WHEN paid = 1 AND msat IS NULL THEN 1 ELSE 0 END), 0, 0, CAST(SUM(took) AS BIGINT), COUNT(*)
FROM (
    SELECT h.id >> 21 AS began, COALESCE(NULLIF(record ->> '$.model', ''), '_none') AS model,
        COALESCE(o.upstream, '') AS upstream,
        CASE WHEN h.state = 'captured' THEN 1 ELSE 0 END AS served,
        CASE WHEN h.charged > 0 THEN 1 ELSE 0 END AS paid,
        COALESCE(record ->> '$.usage.input', 0) + COALESCE(record ->> '$.usage.cache_read', 0)
            + COALESCE(record ->> '$.usage.cache_write', 0) AS input,
        COALESCE(record ->> '$.usage.cache_read', 0) AS cached,
        COALESCE(record ->> '$.usage.output', 0) + COALESCE(record ->> '$.usage.reasoning', 0) AS output,
        h.charged, o.msat, o.nano_usd, COALESCE(h.ended_at - h.created_at, 0) AS took
    FROM (SELECT id, request, state, charged, created_at, ended_at,
        CASE WHEN json_valid(receipt) THEN receipt ELSE '{}' END AS record FROM holds WHERE state <> 'open') h
    LEFT JOIN outlays o ON o.id = h.id
) ended GROUP BY began - began % 3600000, model, upstream;

INSERT INTO request_sums (span, start, model, upstream, requests, served, client_errors, payment_errors, upstream_errors, node_errors,
    clients_gone, charged_requests, input_tokens, cached_tokens, output_tokens, charged_msat, cost_msat, nano_usd,
    unpriced, first_ms, firsts, took_ms, tooks)
SELECT 'day', start - start % 86400000, model, upstream,
    CAST(SUM(requests) AS BIGINT), CAST(SUM(served) AS BIGINT), CAST(SUM(client_errors) AS BIGINT),
    CAST(SUM(payment_errors) AS BIGINT), CAST(SUM(upstream_errors) AS BIGINT), CAST(SUM(node_errors) AS BIGINT),
    CAST(SUM(clients_gone) AS BIGINT), CAST(SUM(charged_requests) AS BIGINT), CAST(SUM(input_tokens) AS BIGINT),
    CAST(SUM(cached_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(charged_msat) AS BIGINT),
    CAST(SUM(cost_msat) AS BIGINT), CAST(SUM(nano_usd) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), CAST(SUM(first_ms)
    AS BIGINT), CAST(SUM(firsts) AS BIGINT), CAST(SUM(took_ms) AS BIGINT), CAST(SUM(tooks) AS BIGINT)
FROM request_sums WHERE span = 'hour' GROUP BY start - start % 86400000, model, upstream;

INSERT INTO request_sums (span, start, model, upstream, requests, served, client_errors, payment_errors, upstream_errors, node_errors,
    clients_gone, charged_requests, input_tokens, cached_tokens, output_tokens, charged_msat, cost_msat, nano_usd,
    unpriced, first_ms, firsts, took_ms, tooks)
SELECT 'ever', 0, model, upstream,
    CAST(SUM(requests) AS BIGINT), CAST(SUM(served) AS BIGINT), CAST(SUM(client_errors) AS BIGINT),
    CAST(SUM(payment_errors) AS BIGINT), CAST(SUM(upstream_errors) AS BIGINT), CAST(SUM(node_errors) AS BIGINT),
    CAST(SUM(clients_gone) AS BIGINT), CAST(SUM(charged_requests) AS BIGINT), CAST(SUM(input_tokens) AS BIGINT),
    CAST(SUM(cached_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(charged_msat) AS BIGINT),
    CAST(SUM(cost_msat) AS BIGINT), CAST(SUM(nano_usd) AS BIGINT), CAST(SUM(unpriced) AS BIGINT), CAST(SUM(first_ms)
    AS BIGINT), CAST(SUM(firsts) AS BIGINT), CAST(SUM(took_ms) AS BIGINT), CAST(SUM(tooks) AS BIGINT)
FROM request_sums WHERE span = 'day' GROUP BY model, upstream;
