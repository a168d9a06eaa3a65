{{/* Names and labels. */}}

{{- define "ncfast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name, with the chart's behind it unless it is in there. Short: a pod's name is put behind it. */}}
{{- define "ncfast.fullname" -}}
{{- $name := include "ncfast.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "ncfast.peers" -}}
{{ include "ncfast.fullname" . }}-peers
{{- end -}}

{{/* Where a hub's pods find each other, as NAME.namespace.svc. */}}
{{- define "ncfast.peersDomain" -}}
{{ include "ncfast.peers" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Of (dict "root" $ "component" "hub"): what a selector may hold, which never changes. */}}
{{- define "ncfast.selector" -}}
app.kubernetes.io/name: {{ include "ncfast.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ncfast.labels" -}}
{{ include "ncfast.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "ncfast.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}
