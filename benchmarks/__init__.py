"""What tierscale is worth in figures; nothing here is part of the product.

Each benchmark is a module that is run (`make bench-…`, `make curves`, `make ablation`,
`make chaos`) and says in its first lines what it measures:

- speed and size of a job: `memory`, `overhead`, `scale` (with `simulated` workers)
- laws: `checks`; `chaos/` breaks things on purpose
- quality against cost: `curves`, `kinds`, `scales`, `ablation`, `methods` (with `method_cases`)
- choosing tiers: `routing` (with `routers`, on `scenes`), `routed_job`
- the papers' own figures: `reproduce/`

`results` keeps the figures in results.json, each with the command that measured it.
"""
