{{- define "lightmeter.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "lightmeter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Other than the gateway's, whose services would lead to the shipper as well. */}}
{{- define "lightmeter.shipSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-ship
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lightmeter.labels" -}}
{{ include "lightmeter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "lightmeter.image" -}}
{{- with .Values.image.digest }}{{ $.Values.image.repository }}@{{ . }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
