{{/* What the pods of hubs and agents have in common; of (dict "root" $ "values" .Values.hub "name" "hub"). */}}

{{- define "ncfast.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "ncfast.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "ncfast.mounts" -}}
- { name: config, mountPath: /etc/ncfast, readOnly: true }
{{- range $name, $_ := .values.secrets }}
- { name: secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true }
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A secret is root's and of the pod's group: 0440 with fsGroup. */}}
{{- define "ncfast.volumes" -}}
- name: config
  configMap: { name: {{ include "ncfast.fullname" .root }}-{{ .name }} }
{{- range $name, $secret := .values.secrets }}
- name: secret-{{ $name }}
  secret: { secretName: {{ $secret }}, defaultMode: 0400 }
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ncfast.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
