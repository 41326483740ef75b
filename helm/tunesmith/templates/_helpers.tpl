{{- define "tunesmith.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tunesmith.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tunesmith.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tunesmith.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tunesmith.labels" -}}
{{ include "tunesmith.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tunesmith.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "tunesmith.fullname" .) }}
{{- end }}

{{- define "tunesmith.image" -}}
{{- $reference := printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- if .Values.image.digest }}{{ $reference = printf "%s@%s" .Values.image.repository .Values.image.digest }}{{ end }}
{{- include "tunesmith.mirrored" (dict "Values" .Values "image" $reference) }}
{{- end }}

{{- /* An image in the registry of imageRegistry. The first part of a name is a registry if it looks like a host. */}}
{{- define "tunesmith.mirrored" -}}
{{- $registry := trimSuffix "/" .Values.imageRegistry }}
{{- if and $registry .image }}
{{- $parts := splitn "/" 2 .image }}
{{- $named := and $parts._1 (or (contains "." $parts._0) (contains ":" $parts._0) (eq $parts._0 "localhost")) }}
{{- $registry }}/{{ if $named }}{{ $parts._1 }}{{ else }}{{ .image }}{{ end }}
{{- else }}{{ .image }}
{{- end }}
{{- end }}

{{- define "tunesmith.tlsSecretName" -}}
{{ include "tunesmith.fullname" . }}-tls
{{- end }}

{{- /* What the operator may do in the namespaces that it watches; docs/security.md gives the reason of each verb. */}}
{{- define "tunesmith.rules" -}}
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs, evalruns, adapterdeployments]
  verbs: [get, list, watch]
- apiGroups: [tunesmith.dev]
  resources: [evalruns]
  verbs: [create]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs]
  verbs: [create, patch]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/status, evalruns/status, adapterdeployments/status]
  verbs: [update]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/finalizers, evalruns/finalizers, adapterdeployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
{{- end }}

{{- /* Pods of Jobs: those of all stages but serving. */}}
{{- define "tunesmith.jobPods" -}}
matchExpressions:
  - {key: tunesmith.dev/stage, operator: In, values: [generate, prepare, train, evaluate]}
{{- end }}

{{- /* Names are looked up at the peers of .dns; without any, anywhere. */}}
{{- define "tunesmith.dnsRule" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .dns }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Says what to do about a CRD that is not of this release; Helm would refuse it with less of a hint. */}}
{{- define "tunesmith.checkOwner" -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" .name }}
{{- if and $found (not .root.Values.crds.adopt) }}
{{- $annotations := $found.metadata.annotations | default dict }}
{{- $owner := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if or (ne $owner .root.Release.Name) (ne $namespace .root.Release.Namespace) }}
{{- $whose := ternary (printf "belongs to the Helm release %s in namespace %s" $owner $namespace) "was not installed by Helm" (ne $owner "") }}
{{- printf "\n\nThe CustomResourceDefinition %s is there already and %s.\n- If that release is gone, or to take the CRDs over: add --take-ownership --set crds.adopt=true\n- If it still runs, or others look after the CRDs: add --set crds.install=false\n" .name $whose | fail }}
{{- end }}
{{- end }}
{{- end }}
