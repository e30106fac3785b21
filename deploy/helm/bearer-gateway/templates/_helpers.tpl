{{- define "bearer-gateway.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bearer-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bearer-gateway.labels" -}}
{{ include "bearer-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "bearer-gateway.secret" -}}
{{- default (include "bearer-gateway.name" .) .Values.secret.existingName -}}
{{- end -}}

{{- define "bearer-gateway.listener" -}}
{{- ternary "https" "http" (hasKey .Values.config.listen "tls") -}}
{{- end -}}

{{/* What no schema can tell: settings that contradict each other. */}}
{{- define "bearer-gateway.check" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- $sqlite := hasPrefix "sqlite:" .Values.config.store -}}
{{- if and $several $sqlite -}}
{{- fail "more than one replica needs a redis: or postgresql: store in config.store; a SQLite file has one owner" -}}
{{- end -}}
{{- $acme := dig "tls" "acme" "" .Values.config.listen -}}
{{- if and $acme (not .Values.persistence.enabled) $sqlite -}}
{{- fail "certificates by ACME are kept in the store: set persistence.enabled, or a redis: or postgresql: store" -}}
{{- end -}}
{{- if and $several .Values.persistence.enabled -}}
{{- fail "persistence.enabled is for one replica with a SQLite store" -}}
{{- end -}}
{{- end -}}
