"""One job, any number of workers on any machines: plan, work, status, finish."""
