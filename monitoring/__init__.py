"""What an operator loads into Prometheus, Alertmanager and Grafana, and the tables from which it is made.

`python -m monitoring` writes `config/prometheus/` and `config/grafana/`; nothing in there is written by hand.
"""
