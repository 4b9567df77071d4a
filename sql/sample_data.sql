-- Sample data that looks like the real thing: models of a maritime-surveillance service, their versions in
-- every role and status, the edges between them, and correlation parameter sets. For the demo and the tests.
--
-- Who:   anyone who may INSERT into the tables of schema.sql; run that first. Not for a production database.
-- How:   PGCLIENTENCODING=UTF8 psql -X -v ON_ERROR_STOP=1 --single-transaction -f sql/sample_data.sql "$DSN"
-- Again: idempotent. Whatever is there already (the same name, or another ACTIVE PRIMARY) is left as it is.
--
-- Areas, vessels and thresholds are made up; coordinates are [longitude, latitude] in WGS 84.

INSERT INTO kcg.detection_models (model_id, display_name, description, is_enabled)
VALUES
    ('ais-spoofing',       '선박위치 위·변조 탐지',   'AIS 위치·식별번호 조작 의심 항적을 찾는다',             true),
    ('dark-vessel',        '다크베셀 탐지',           'AIS 신호를 의도적으로 끈 선박을 찾는다',                true),
    ('drift',              '표류 선박 탐지',          '동력을 잃고 해·조류에 밀리는 선박을 찾는다',            true),
    ('fishing-activity',   '조업 활동 판별',          '속력과 침로 변화로 조업 구간을 판별한다',               true),
    ('gear-conflict',      '어구 충돌 탐지',          '서로 다른 어구가 같은 수역에서 겹치는 경우를 찾는다',   true),
    ('loitering',          '배회 선박 탐지',          '좁은 수역을 오래 맴도는 선박을 찾는다',                 true),
    ('pair-trawling',      '쌍끌이 조업 탐지',        '나란히 예인하는 두 선박을 찾는다',                      true),
    ('port-approach',      '항만 접근 이상 탐지',     '입항 신고 없이 항만에 접근하는 선박을 찾는다',          true),
    ('rendezvous',         '해상 접선 탐지',          '외해에서 두 선박이 만나는 경우를 찾는다',               true),
    ('risk-score',         '종합 위험도 산출',        '다른 모델의 결과를 모아 선박별 위험도를 매긴다',        true),
    ('speed-anomaly',      '속력 이상 탐지',          '선종에 맞지 않는 속력 변화를 찾는다',                   true),
    ('transshipment',      '불법 환적 탐지',          '접선 중 화물이나 어획물을 옮기는 정황을 찾는다',        true),
    ('zone-intrusion',     '수역 침범 탐지',          '특정 수역과 금지 구역에 들어온 선박을 찾는다',          true),
    ('vessel-type-legacy', '선종 추정 (구형)',        '운용 종료된 모델. 버전은 기록으로 남겨 둔다',           false)
ON CONFLICT DO NOTHING;


-- Versions

INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)
VALUES
    ('ais-spoofing', '1.4.0', 'PRIMARY', 'ARCHIVED', $json$
        {"max_speed_kn": 60, "max_jump_nm": 12, "min_reports": 3}
    $json$),
    ('ais-spoofing', '2.0.1', 'PRIMARY', 'ACTIVE', $json$
        {
            "max_speed_kn": 55.0,
            "max_jump_nm": 8.5,
            "min_reports": 5,
            "duplicate_mmsi": {"enabled": true, "min_separation_nm": 3.0, "window_minutes": 20},
            "ignored_mmsi_prefixes": ["99", "970", "972", "974"],
            "feature_weights": {
                "position_jump": 0.42, "static_change": 0.18, "clock_skew": 0.15, "radar_mismatch": 0.25
            }
        }
    $json$),
    ('ais-spoofing', '2.1.0-rc1', 'CHALLENGER', 'ACTIVE', $json$
        {
            "max_speed_kn": 50.0,
            "max_jump_nm": 6.0,
            "min_reports": 5,
            "duplicate_mmsi": {"enabled": true, "min_separation_nm": 2.0, "window_minutes": 30},
            "ignored_mmsi_prefixes": ["99", "970", "972", "974"],
            "feature_weights": {
                "position_jump": 0.36, "static_change": 0.16, "clock_skew": 0.18, "radar_mismatch": 0.30
            }
        }
    $json$),

    ('dark-vessel', '3.1.0', 'PRIMARY', 'ARCHIVED', $json$
        {"gap_minutes": 60, "min_score": 0.7}
    $json$),
    ('dark-vessel', '3.2.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "gap_minutes": 45,
            "min_score": 0.65,
            "label": "다크베셀 의심",
            "coverage": {"min_station_count": 2, "max_distance_nm": 40, "satellite": false},
            "score_bands": [
                {"name": "관심", "from": 0.65},
                {"name": "주의", "from": 0.78},
                {"name": "경계", "from": 0.90}
            ],
            "feature_weights": {
                "gap_length": 0.35, "zone_distance": 0.25, "history": 0.20,
                "night": 0.10, "speed_before": 0.10
            }
        }
    $json$),
    ('dark-vessel', '3.3.0', 'CHALLENGER', 'ACTIVE', $json$
        {
            "gap_minutes": 30,
            "min_score": 0.60,
            "label": "다크베셀 의심",
            "coverage": {"min_station_count": 1, "max_distance_nm": 55, "satellite": true},
            "score_bands": [
                {"name": "관심", "from": 0.60},
                {"name": "주의", "from": 0.75},
                {"name": "경계", "from": 0.88}
            ],
            "feature_weights": {
                "gap_length": 0.30, "zone_distance": 0.30, "history": 0.22,
                "night": 0.08, "speed_before": 0.10
            }
        }
    $json$),
    ('dark-vessel', '4.0.0-alpha', 'SHADOW', 'ACTIVE', $json$
        {
            "engine": "sequence",
            "window_minutes": 180,
            "min_score": 0.5,
            "coverage": {"min_station_count": 1, "max_distance_nm": 55, "satellite": true},
            "fallback": null
        }
    $json$),

    ('drift', '1.0.2', 'PRIMARY', 'ACTIVE', $json$
        {
            "max_speed_kn": 2.5,
            "min_duration_minutes": 40,
            "course_heading_gap_deg": 45,
            "current_model": {"source": "tide-grid", "max_age_hours": 6},
            "excluded_nav_status": [1, 5, 6]
        }
    $json$),

    ('fishing-activity', '2.5.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "speed_kn": {
                "trawl": [2.0, 4.5],
                "longline": [4.0, 8.0],
                "jigging": [0.0, 1.5],
                "purse-seine": [0.5, 10.0]
            },
            "turn_rate_deg_per_min": 8.0,
            "min_segment_minutes": 25,
            "gear_names": {"trawl": "저인망", "longline": "연승", "jigging": "채낚기", "purse-seine": "선망"},
            "active_hours": {"jigging": {"from": "18:00", "to": "06:00", "zone": "Asia/Seoul"}}
        }
    $json$),
    ('fishing-activity', '2.6.0', 'CHALLENGER', 'TESTING', $json$
        {
            "speed_kn": {
                "trawl": [1.8, 4.8],
                "longline": [3.5, 8.0],
                "jigging": [0.0, 1.8],
                "purse-seine": [0.5, 10.0]
            },
            "turn_rate_deg_per_min": 6.5,
            "min_segment_minutes": 20
        }
    $json$),

    ('gear-conflict', '1.2.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "buffer_m": 500,
            "min_overlap_minutes": 15,
            "pairs": [
                {"moving": "저인망", "fixed": "통발", "severity": 3},
                {"moving": "저인망", "fixed": "자망", "severity": 3},
                {"moving": "선망",   "fixed": "연승", "severity": 2}
            ],
            "closed_seasons": [
                {"species": "꽃게",   "from": "06-21", "to": "08-20"},
                {"species": "대게",   "from": "06-01", "to": "11-30"},
                {"species": "살오징어", "from": "04-01", "to": "05-31"}
            ]
        }
    $json$),
    ('gear-conflict', '1.3.0-draft', 'CHALLENGER', 'DRAFT', $json$
        {"buffer_m": 350, "min_overlap_minutes": 10, "pairs": []}
    $json$),

    ('loitering', '2.0.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "radius_nm": 2.0,
            "min_duration_minutes": 90,
            "max_mean_speed_kn": 3.0,
            "anchorages_excluded": true,
            "schedule": {"every_minutes": 10, "window_hours": 6}
        }
    $json$),
    ('loitering', '2.1.0', 'SHADOW', 'ACTIVE', $json$
        {
            "radius_nm": 1.5,
            "min_duration_minutes": 60,
            "max_mean_speed_kn": 3.5,
            "anchorages_excluded": true,
            "schedule": {"every_minutes": 5, "window_hours": 8}
        }
    $json$),

    ('pair-trawling', '1.1.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "separation_m": {"min": 150, "max": 600},
            "speed_kn": {"min": 2.0, "max": 4.5, "max_difference": 0.4},
            "max_course_difference_deg": 10,
            "min_duration_minutes": 30,
            "licensed_pairs": [[412000101, 412000102], [412000233, 412000234]]
        }
    $json$),

    ('port-approach', '1.0.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "ports": [
                {"code": "KRINC", "name": "인천", "at": [126.60, 37.45], "radius_nm": 12},
                {"code": "KRPTK", "name": "평택", "at": [126.82, 36.97], "radius_nm": 10},
                {"code": "KRMOK", "name": "목포", "at": [126.38, 34.78], "radius_nm": 8},
                {"code": "KRPUS", "name": "부산", "at": [129.05, 35.10], "radius_nm": 12}
            ],
            "notice_hours": 24,
            "exempt_types": ["도선선", "예인선", "여객선"]
        }
    $json$),

    ('rendezvous', '1.3.1', 'PRIMARY', 'ACTIVE', $json$
        {
            "max_distance_m": 250,
            "min_duration_minutes": 20,
            "max_speed_kn": 2.0,
            "min_shore_distance_nm": 10,
            "ignored_pairs": [["도선선", "*"], ["예인선", "*"]]
        }
    $json$),
    ('rendezvous', '1.4.0', 'CHALLENGER', 'ARCHIVED', $json$
        {"max_distance_m": 400, "min_duration_minutes": 12, "max_speed_kn": 2.5, "min_shore_distance_nm": 8}
    $json$),

    ('risk-score', '5.0.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "weights": {
                "dark-vessel": 0.25,
                "ais-spoofing": 0.20,
                "transshipment": 0.20,
                "zone-intrusion": 0.20,
                "gear-conflict": 0.10,
                "port-approach": 0.05
            },
            "half_life_hours": 72,
            "levels": [
                {"level": 1, "name": "정상", "below": 0.30},
                {"level": 2, "name": "관심", "below": 0.55},
                {"level": 3, "name": "주의", "below": 0.75},
                {"level": 4, "name": "경계", "below": 0.90},
                {"level": 5, "name": "심각", "below": null}
            ],
            "notify": {"from_level": 4, "channels": ["상황실", "함정"], "quiet_minutes": 15}
        }
    $json$),

    ('speed-anomaly', '1.8.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "z_score": 3.5,
            "min_samples": 30,
            "limits_kn": {"화물선": 22, "유조선": 18, "어선": 14, "여객선": 40, "기타": 30},
            "smoothing": {"method": "median", "points": 5}
        }
    $json$),
    ('speed-anomaly', '1.9.0-rc2', 'SHADOW', 'TESTING', $json$
        {"z_score": 3.0, "min_samples": 20, "smoothing": {"method": "kalman", "process_noise": 1e-3}}
    $json$),

    ('transshipment', '2.2.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "min_encounter_minutes": 60,
            "min_draught_change_m": 0.3,
            "carrier_types": ["냉동운반선", "유조선", "어획물운반선"],
            "confidence": {"with_radar": 0.85, "without_radar": 0.60},
            "areas": {
                "west-sea": {"enabled": true},
                "east-sea": {"enabled": true},
                "jeju-south": {"enabled": false}
            }
        }
    $json$),
    ('transshipment', '2.3.0', 'CHALLENGER', 'ACTIVE', $json$
        {
            "min_encounter_minutes": 45,
            "min_draught_change_m": 0.2,
            "carrier_types": ["냉동운반선", "유조선", "어획물운반선", "준설선"],
            "confidence": {"with_radar": 0.80, "without_radar": 0.55},
            "areas": {
                "west-sea": {"enabled": true},
                "east-sea": {"enabled": true},
                "jeju-south": {"enabled": true}
            }
        }
    $json$),

    ('zone-intrusion', '4.1.0', 'PRIMARY', 'ACTIVE', $json$
        {
            "approach_buffer_nm": 3.0,
            "min_points_inside": 2,
            "zones": [
                {
                    "id": "ZONE-1",
                    "name": "제1구역",
                    "severity": 4,
                    "polygon": [
                        [129.80, 37.20], [131.00, 37.20], [131.00, 38.30], [129.80, 38.30], [129.80, 37.20]
                    ]
                },
                {
                    "id": "ZONE-2",
                    "name": "제2구역",
                    "severity": 3,
                    "polygon": [
                        [124.40, 35.00], [125.60, 35.00], [125.60, 36.20], [124.40, 36.20], [124.40, 35.00]
                    ]
                },
                {
                    "id": "CLOSED-N",
                    "name": "북측 조업 금지 구역",
                    "severity": 5,
                    "polygon": [
                        [124.50, 37.55], [125.30, 37.60], [125.70, 37.75], [124.60, 37.80], [124.50, 37.55]
                    ]
                }
            ],
            "seasonal": [{"zone": "ZONE-2", "from": "04-16", "to": "10-15"}]
        }
    $json$),

    ('vessel-type-legacy', '0.9.7', 'PRIMARY', 'ACTIVE', $json$
        {"classes": ["화물선", "유조선", "어선", "여객선"], "min_probability": 0.8}
    $json$)
ON CONFLICT DO NOTHING;


-- Edges: (who, needs whom, under which name). They form no cycle.

INSERT INTO kcg.detection_model_dependencies (model_id, depends_on, input_key)
VALUES
    ('dark-vessel',        'ais-spoofing',     'position_trust'),
    ('drift',              'speed-anomaly',    'speed_profile'),
    ('fishing-activity',   'speed-anomaly',    'speed_profile'),
    ('gear-conflict',      'fishing-activity', 'fishing_segments'),
    ('gear-conflict',      'zone-intrusion',   'zone_hits'),
    ('loitering',          'drift',            'drift_windows'),
    ('loitering',          'port-approach',    'anchorage_calls'),
    ('pair-trawling',      'fishing-activity', 'fishing_segments'),
    ('rendezvous',         'dark-vessel',      'gap_windows'),
    ('rendezvous',         'loitering',        'loitering_windows'),
    ('risk-score',         'ais-spoofing',     'spoofing_score'),
    ('risk-score',         'dark-vessel',      'gap_score'),
    ('risk-score',         'dark-vessel',      'gap_windows'),
    ('risk-score',         'gear-conflict',    'conflict_score'),
    ('risk-score',         'port-approach',    'approach_score'),
    ('risk-score',         'transshipment',    'transfer_score'),
    ('risk-score',         'zone-intrusion',   'zone_hits'),
    ('transshipment',      'rendezvous',       'encounters'),
    ('vessel-type-legacy', 'speed-anomaly',    'speed_profile'),
    ('zone-intrusion',     'ais-spoofing',     'position_trust')
ON CONFLICT DO NOTHING;


-- Parameter sets of the track correlation

INSERT INTO kcg.correlation_param_models (name, display_name, is_default, is_active, params)
VALUES
    ('default', '기본', true, true, $json$
        {
            "gate": {"distance_m": 800, "course_deg": 20, "speed_kn": 3.0},
            "weights": {"distance": 0.5, "course": 0.2, "speed": 0.2, "size": 0.1},
            "min_score": 0.70,
            "track_timeout_seconds": 180
        }
    $json$),
    ('aggressive', '적극', false, true, $json$
        {
            "gate": {"distance_m": 1500, "course_deg": 35, "speed_kn": 5.0},
            "weights": {"distance": 0.4, "course": 0.2, "speed": 0.2, "size": 0.2},
            "min_score": 0.55,
            "track_timeout_seconds": 300
        }
    $json$),
    ('conservative', '보수', false, true, $json$
        {
            "gate": {"distance_m": 400, "course_deg": 12, "speed_kn": 1.5},
            "weights": {"distance": 0.6, "course": 0.2, "speed": 0.1, "size": 0.1},
            "min_score": 0.85,
            "track_timeout_seconds": 120
        }
    $json$),
    ('radar-only', '레이더 전용 (시험 종료)', false, false, $json$
        {
            "gate": {"distance_m": 600},
            "weights": {"distance": 1.0},
            "min_score": 0.80,
            "track_timeout_seconds": 60
        }
    $json$)
ON CONFLICT DO NOTHING;
