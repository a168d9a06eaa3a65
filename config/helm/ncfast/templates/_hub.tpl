{{/* The hub's file as a dictionary: what the chart says, and hub.config laid over it. */}}
{{- define "ncfast.hubConfig" -}}
{{- $hub := .Values.hub -}}
{{- $listeners := list -}}
{{- range $hub.listeners -}}
{{- $listeners = append $listeners (omit . "port") -}}
{{- end -}}
{{- $config := dict
    "listeners" $listeners
    "edge" (dict "bind" ":8080")
    "admin" (dict "bind" ":9400" "unix" "/run/ncfast/admin.sock")
    "logging" (dict "format" "json") -}}
{{- if $hub.cluster -}}
{{- $own := "/run/secrets/mesh/${POD_NAME}" -}}
{{- $_ := set $config "ha" (dict
    "enabled" true
    "mode" "active"
    "replica_id" "${POD_NAME}"
    "mesh" (dict
        "listen" ":9500"
        "advertise" (printf "tls://${POD_NAME}.%s:9500" (include "ncfast.peersDomain" .))
        "allow" (list (printf ".%s" (include "ncfast.peersDomain" .)))
        "tls" (dict
            "ca_bundle" "/run/secrets/mesh/ca.crt"
            "cert_file" (printf "%s.crt" $own)
            "key_file" (printf "%s.key" $own)))) -}}
{{- end -}}
{{- $config = mergeOverwrite $config (deepCopy $hub.config) -}}
{{- if $hub.cluster -}}
{{- if not (dig "ha" "redis_url" "" $config) -}}
{{- fail "a cluster needs hub.config.ha.redis_url, where its hubs find each other; one hub alone: hub.cluster=false, hub.replicas=1" -}}
{{- end -}}
{{- else if gt (int $hub.replicas) 1 -}}
{{- fail "several hubs without a cluster would not know of each other's agents: hub.cluster=true, or hub.replicas=1" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Both waits of a drain, and what the hook and the end take; of a dictionary of the hub's or agent's file. */}}
{{- define "ncfast.graceSeconds" -}}
{{- add (ceil (.delay | float64)) (ceil (.timeout | float64)) 15 -}}
{{- end -}}
