{{/* The agent's file as a dictionary: what the chart says, and agent.config laid over it. */}}
{{- define "ncfast.agentConfig" -}}
{{- $config := dict "token_file" "/run/secrets/token/token" "logging" (dict "format" "json") -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.agent.config)) -}}
{{- end -}}
